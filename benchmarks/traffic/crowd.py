"""A thousand ModelDeployments on the cluster: one of them is changed, and the API server, the operator and both routers
have all the others too."""

from __future__ import annotations

import asyncio

from benchmarks.control import fleet, routing
from benchmarks.control.result import Result
from benchmarks.control.routers import SELECTOR
from benchmarks.control.world import NAMESPACE, World
from inflight_demo.cluster import SYSTEM
from inflight_demo.console import Console
from inflight_probe import operators, pods
from inflight_probe.stats import percentile

_AT_ONCE = 8
_SETTLE_SECONDS = 60


async def crowded(world: World, console: Console) -> list[Result]:
    """A weight patched with 999 others beside it, whose pods have no node and whose routes say so."""
    others, count, name = world.some(999, 10), world.some(200, 5), "crowded"
    async with world.deployed(routing.of_two(name)):
        try:
            await _come(world, console, others)
            leader = (await operators.leader(world.kube, SYSTEM))["metadata"]["uid"]
            before = pods.cpu_seconds(leader)
            took = await routing.patching(world, console, name, count)
            cpu = 1000 * (pods.cpu_seconds(leader) - before) / count
            operator = pods.resident_bytes(leader) / 2**20
            routers = await world.kube.list_all("Pod", SYSTEM, SELECTOR)
            router = max(pods.resident_bytes(pod["metadata"]["uid"]) for pod in routers) / 2**20
        finally:
            await fleet.remove_all(world.kube, seconds=900)
    p99, longest = percentile(took.replied, 99), max(took.replied)
    return [
        Result(
            suite="traffic",
            row="crowded",
            what="1,000 ModelDeployments on the cluster, one weight changed: from the PATCH's reply to both routers",
            goal="p99 <= 150 ms; operator RSS <= 400 MiB; router <= 250 MiB",
            measured=f"p99 {p99:.0f} ms (p50 {percentile(took.replied, 50):.0f}, longest {longest:.0f}; since sent "
            f"p99 {percentile(took.sent, 99):.0f}); {operator:.0f} MiB; {router:.0f} MiB; the operator's CPU meanwhile "
            f"{cpu:.0f} ms a change",
            kept=p99 <= 150 and operator <= 400 and router <= 250,
            data={"replied_ms": took.replied, "sent_ms": took.sent, "cpu_ms": cpu},
            quick=world.quick,
        )
    ]


async def _come(world: World, console: Console, others: int) -> None:
    names, done = iter([f"fleet-{number:04d}" for number in range(others)]), 0

    async def some() -> None:
        nonlocal done
        for name in names:
            await world.kube.apply(fleet.placeless(name))
            done += 1
            if done % 100 == 0:
                console.progress(done, others, "ModelDeployments applied")

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))

    async def known() -> bool:
        found = await world.kube.list_all("ModelDeployment", NAMESPACE)
        return sum(bool(each.get("status", {}).get("variants")) for each in found) > others

    await world.kube.wait_until(known, "the operator has seen to all of them", seconds=900, every=5)
    await asyncio.sleep(world.some(_SETTLE_SECONDS, 3))  # pods that find no node come to rest
