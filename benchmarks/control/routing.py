"""How fast the routers follow: a weight patched, an endpoint that became ready. Read from Envoy itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.control import routers
from benchmarks.control.arrivals import watching
from benchmarks.control.result import Result
from benchmarks.control.routers import Router
from benchmarks.control.world import NAMESPACE, World, deployment, variant
from inflight_demo.console import Console
from inflight_probe.kube import Object
from inflight_probe.scaling import OWNER
from inflight_probe.stats import percentile

_GOAL_MILLISECONDS = 500


@dataclass(frozen=True)
class Took:
    """Milliseconds until both routers had a weight in force: since the PATCH was sent, and since its reply."""

    sent: list[float]
    replied: list[float]


async def patched(world: World, console: Console) -> list[Result]:
    """Weight patched → both routers have it in force. From sending the PATCH; each change is a new split."""
    name, count = "weights", world.some(200, 10)
    async with world.deployed(of_two(name)):
        took = await patching(world, console, name, count)
    return [_result("weights", f"weight patched → in force in both routers (p99 of {count})", took.sent, world.quick)]


def of_two(name: str) -> Object:
    """A ModelDeployment with a split."""
    both = [variant("stable", 95, "digits/1/model.onnx"), variant("candidate", 5, "digits/2/model.onnx")]
    return deployment(name, both, {})


async def patching(world: World, console: Console, name: str, count: int) -> Took:
    """So many new weights of what `of_two` made, one after the other."""
    took = Took([], [])
    async with routers.opened(world.kube) as found:
        splits = {router: await router.split(NAMESPACE, name) for router in found}
        assert all(splits.values()), f"a router has no split of {name}"

        async def look(router: Router) -> Iterable[Hashable]:
            return [tuple(sorted((await router.weights(splits[router])).values()))]

        for number in range(count):
            stable = 90 - number % 80
            patch = [
                {"op": "replace", "path": "/spec/variants/0/weight", "value": stable},
                {"op": "replace", "path": "/spec/variants/1/weight", "value": 100 - stable},
            ]
            goal = tuple(sorted((stable, 100 - stable)))
            async with routers.polling(found, look) as arrivals:
                sent = time.perf_counter()
                await world.kube.patch("ModelDeployment", NAMESPACE, name, patch)
                replied = time.perf_counter()
                last = await arrivals.all_of([(router.name, goal) for router in found], seconds=30)
            took.sent.append(1000 * (last - sent))
            took.replied.append(max(0.0, 1000 * (last - replied)))
            console.progress(number + 1, count, "weights patched")
    return took


async def ready_endpoints(world: World, console: Console) -> list[Result]:
    """Endpoint ready → in both routers: pods are deleted by fives, the time is from the EndpointSlice's event."""
    name, rounds, replicas = "endpoints", world.some(40, 1), 5
    manifest = deployment(name, [variant("main", 100, "digits/1/model.onnx")], {}, {"minReplicas": replicas})
    took: list[float] = []
    async with world.deployed(manifest), routers.opened(world.kube) as found:
        await _settled(world, name, replicas)

        async def look(router: Router) -> Iterable[Hashable]:
            return await router.endpoints(f"{NAMESPACE}/{name}-")

        for number in range(rounds):
            old = await _addresses(world, name)
            async with (
                watching(world.kube, NAMESPACE, {"EndpointSlice": _ready_addresses}) as ready,
                routers.polling(found, look) as routed,
            ):
                await _delete_pods(world, name)
                new = await _settled(world, name, replicas, without=old)
                for address in new:
                    told = await ready.all_of([address], seconds=10)
                    last = await routed.all_of([(router.name, address) for router in found], seconds=10)
                    took.append(max(1000 * (last - told), 0))
            console.progress((number + 1) * replicas, rounds * replicas, "endpoints replaced")
    return [_result("endpoints", f"endpoint ready → in both routers (p99 of {len(took)})", took, world.quick)]


def _ready_addresses(found: Object) -> Iterable[Hashable]:
    for endpoint in found.get("endpoints") or []:
        if endpoint["conditions"].get("ready"):
            for port in found.get("ports") or []:
                if port["name"] == "http":
                    yield f"{endpoint['addresses'][0]}:{port['port']}"


async def _addresses(world: World, name: str) -> set[str]:
    slices = await world.kube.list_all("EndpointSlice", NAMESPACE, f"{OWNER}={name}")
    return {str(address) for found in slices for address in _ready_addresses(found)}


async def _settled(world: World, name: str, replicas: int, without: Sequence[str] | set[str] = ()) -> set[str]:
    """The ready addresses, once there are `replicas` of them besides those in `without`."""
    found: set[str] = set()

    async def enough() -> bool:
        nonlocal found
        found = await _addresses(world, name) - set(without)
        return len(found) >= replicas

    await world.kube.wait_until(enough, f"{replicas} new ready endpoints of {name}", seconds=180)
    await asyncio.sleep(1)
    return found


async def _delete_pods(world: World, name: str) -> None:
    for pod in await world.kube.list_all("Pod", NAMESPACE, f"{OWNER}={name}"):
        if not pod["metadata"].get("deletionTimestamp"):
            await world.kube.delete("Pod", NAMESPACE, pod["metadata"]["name"])


def _result(row: str, what: str, took: Sequence[float], quick: bool) -> Result:
    p99 = percentile(took, 99)
    return Result(
        row=row,
        what=what,
        goal=f"<= {_GOAL_MILLISECONDS} ms",
        measured=f"{p99:.0f} ms (p50 {percentile(took, 50):.0f}, longest {max(took):.0f})",
        kept=p99 <= _GOAL_MILLISECONDS,
        data={"milliseconds": [round(t, 1) for t in took]},
        quick=quick,
    )
