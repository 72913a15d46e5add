"""Changes that a user makes on purpose, under load: none may cost a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from benchmarks.control.result import Result
from benchmarks.control.world import NAMESPACE, SECOND_WAITING, WAITING, World
from benchmarks.traffic.pods import kill
from benchmarks.traffic.prober import RATE, Probe, all_ready, lost, probing, serving, waiting
from inflight_demo import ready
from inflight_demo.cluster import SYSTEM
from inflight_demo.console import Console
from inflight_probe.kube import Object
from inflight_probe.scaling import OWNER

_ENOUGH = 30_000
_SECONDS = 240


async def _until_enough(world: World, probe: Probe, again: Callable[[], Awaitable[None]]) -> None:
    """Do it again and again until so many requests were asked meanwhile, and a little longer."""
    while True:
        await again()
        if probe.asked >= world.some(_ENOUGH, 500):
            break
    await asyncio.sleep(3)


async def rolled(world: World, console: Console) -> list[Result]:
    """A variant's model is replaced, and again, ..."""
    name, times = "rolled", 0

    async with serving(world, waiting(name, {"main": 100}, 3)), probing(world, name) as probe:

        async def again() -> None:
            nonlocal times
            times += 1
            key = SECOND_WAITING if times % 2 else WAITING
            patch = [{"op": "replace", "path": "/spec/variants/0/model/uri", "value": f"s3://models/{key}"}]
            await world.kube.patch("ModelDeployment", NAMESPACE, name, patch)
            await ready.wait_ready(world.kube, NAMESPACE, name, seconds=_SECONDS, say=lambda _: None)
            probe.mark(f"rollout {times} done")
            console.progress(probe.asked, world.some(_ENOUGH, 500), "requests")

        await _until_enough(world, probe, again)
    what = "a variant rolled to a new model, again and again"
    return [lost("rolled", what, probe, world, at_least=_ENOUGH, rollouts=times)]


async def rolled_off(world: World, console: Console) -> list[Result]:
    """`rolled` with its protections taken away: the old pods go before the new ones are there, and without a drain.
    With the drain alone nothing fails as long as new pods are ready before it is over. It has to fail."""
    name = "rolled-off"
    async with serving(world, waiting(name, {"main": 100}, 3)), probing(world, name) as probe:
        await asyncio.sleep(world.some(20, 2))
        for pod in await world.kube.list_all("Pod", NAMESPACE, f"{OWNER}={name}"):
            kill(pod)
        probe.mark("killed")
        await asyncio.sleep(5)
        await world.kube.wait_until(lambda: all_ready(world, name), "the pods are replaced", seconds=180)
        console.say(f"{len(probe.run.failed)} failed")
    result = lost(name, "the same with the old pods gone first, at once", probe, world, at_least=3_000)
    return [replace(result, goal="fails", kept=bool(probe.run.failed))]


async def weights(world: World, console: Console) -> list[Result]:
    """0 → 10 → 50 → 100 → 0 % for a second variant; when it has none again nobody may be sent to it."""
    name = "weights"
    made = waiting(name, {"stable": 100, "candidate": 0}, 3)
    async with serving(world, made), probing(world, name) as probe:
        for weight in (0, 10, 50, 100, 0):
            patch = [
                {"op": "replace", "path": f"/spec/variants/{n}/weight", "value": value}
                for n, value in enumerate((100 - weight, weight))
            ]
            await world.kube.patch("ModelDeployment", NAMESPACE, name, patch)
            await in_force(world, name, {"stable": 100 - weight, "candidate": weight})
            probe.mark(f"{weight} % in force")
            await asyncio.sleep(world.some(int(_ENOUGH / RATE / 5), 2))
            console.say(f"{weight} %: {probe.asked:,} requests")
        probe.mark("end")
    since = probe.marks["0 % in force"] + 5
    late = sum(o.reply.variant == "candidate" and o.due > since for o in probe.run.ok)
    result = lost("weights", "weight 0 → 10 → 50 → 100 → 0 %", probe, world, at_least=_ENOUGH, late=late)
    assert not late, f"{late} requests reached a variant that had had no weight for 5 s"
    return [result]


async def in_force(world: World, name: str, wanted: Mapping[str, int]) -> None:
    """Wait until the status says that these weights are."""

    def done(found: Object | None) -> bool:
        told = (found or {}).get("status", {}).get("variants", [])
        return {v["name"]: v["effectiveWeight"] for v in told} == wanted

    await world.kube.wait("ModelDeployment", NAMESPACE, name, done, seconds=_SECONDS)


async def routers(world: World, console: Console) -> list[Result]:
    """Both routers are replaced, and again, ..."""
    return await _restarted(world, console, "routers", "inflight-router")


async def operators(world: World, console: Console) -> list[Result]:
    """Both operators are replaced, and again, ..."""
    return await _restarted(world, console, "operators", "inflight-operator")


async def _restarted(world: World, console: Console, row: str, deployment: str) -> list[Result]:
    times = 0
    async with serving(world, waiting(row, {"main": 100}, 3)), probing(world, row) as probe:

        async def restart() -> None:
            nonlocal times
            times += 1
            stamp = {"metadata": {"annotations": {"benchmark/restarted": str(probe.asked)}}}
            await world.kube.patch("Deployment", SYSTEM, deployment, {"spec": {"template": stamp}})
            await asyncio.sleep(2)
            await world.kube.wait_until(lambda: _rolled(world, deployment), f"{deployment} is new", seconds=_SECONDS)
            probe.mark(f"rollout {times} done")
            console.progress(probe.asked, world.some(_ENOUGH, 500), "requests")

        await _until_enough(world, probe, restart)
    what = f"rollout of {deployment}, again and again"
    return [lost(row, what, probe, world, at_least=_ENOUGH, rollouts=times)]


async def _rolled(world: World, deployment: str) -> bool:
    found = await world.kube.get("Deployment", SYSTEM, deployment) or {}
    status = found.get("status", {})
    current: bool = status.get("observedGeneration") == found["metadata"]["generation"]
    wanted = found["spec"]["replicas"]
    all_new: bool = status.get("updatedReplicas") == status.get("replicas") == status.get("availableReplicas") == wanted
    return current and all_new


async def scaled(world: World, console: Console) -> list[Result]:
    """1 → 8 → 1 replicas, and again, by their minimum: what the HPA takes away is under load."""
    name, times = "scaled", 0
    async with serving(world, waiting(name, {"main": 100}, 1, most=8)), probing(world, name) as probe:

        async def there_and_back() -> None:
            nonlocal times
            times += 1
            for replicas in (8, 1):
                scaling = {"spec": {"autoscaling": {"minReplicas": replicas}}}
                await world.kube.patch("ModelDeployment", NAMESPACE, name, scaling)
                await world.kube.wait_until(
                    lambda n=replicas: _ready_pods(world, name, n),  # type: ignore[misc]
                    f"{replicas} pods",
                    seconds=_SECONDS,
                )
                probe.mark(f"{replicas} pods, {times}")
                console.say(f"{replicas} pods: {probe.asked:,} requests")
                await asyncio.sleep(2)

        await _until_enough(world, probe, there_and_back)
    return [lost("scaled", "1 → 8 → 1 replicas, again and again", probe, world, at_least=_ENOUGH, times=times)]


async def _ready_pods(world: World, name: str, wanted: int) -> bool:
    found = await world.kube.list_all("Deployment", NAMESPACE, f"{OWNER}={name}")
    counts = {(d["status"].get("readyReplicas", 0), d["status"].get("replicas", 0)) for d in found}
    return counts == {(wanted, wanted)}
