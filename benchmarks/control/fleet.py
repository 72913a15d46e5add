"""Many ModelDeployments: how soon their children exist, and what the operator weighs with 200 of them.

Their pods ask for a node that does not exist, so that 200 of them cost no CPU: what is measured is the control
plane. The time is from sending the CR until the API server's watch has told of the last of its children.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Iterable

from benchmarks.control.arrivals import watching
from benchmarks.control.result import Result
from benchmarks.control.world import NAMESPACE, World, deployment, variant
from inflight_demo.cluster import SYSTEM
from inflight_demo.console import Console
from inflight_probe import operators, pods
from inflight_probe.kube import Kube, Object
from inflight_probe.scaling import OWNER
from inflight_probe.stats import percentile

_CHILDREN = ("Deployment", "Service", "HorizontalPodAutoscaler")
_GOAL_MILLISECONDS = 500
_IDLE_MIB, _FULL_MIB = 130, 260


async def applied(world: World, console: Console) -> list[Result]:
    """CR applied → Deployment, Service and HPA exist, one after the other; then the operator's memory."""
    count = world.some(200, 10)
    idle = await operator_mib(world.kube)
    took: list[float] = []
    try:
        async with watching(world.kube, NAMESPACE, {kind: _keys(kind) for kind in _CHILDREN}) as arrivals:
            for number in range(count):
                name = f"fleet-{number:03d}"
                sent = time.perf_counter()
                await world.kube.apply(placeless(name))
                last = await arrivals.all_of([(kind, name) for kind in _CHILDREN], seconds=30)
                took.append(1000 * (last - sent))
                console.progress(number + 1, count, "ModelDeployments applied")
        await asyncio.sleep(world.some(60, 5))
        full = await operator_mib(world.kube)
    finally:
        await remove_all(world.kube)
    return [_children(took, world.quick), _memory(idle, full, count, world.quick)]


def _keys(kind: str):  # type: ignore[no-untyped-def]
    """A revision's own child: the alias Service, which belongs to no variant, does not count."""

    def keys(found: Object) -> Iterable[Hashable]:
        labels = found["metadata"].get("labels", {})
        if OWNER in labels and "serving.inflight.dev/revision" in labels:
            yield kind, labels[OWNER]

    return keys


def placeless(name: str) -> Object:
    """A ModelDeployment whose pods have no node to run on."""
    nowhere = {"nodeSelector": {"inflight.dev/benchmark": "no-such-node"}}
    return deployment(name, [variant("main", 100, "digits/1/model.onnx")], {"podTemplate": nowhere})


async def operator_mib(kube: Kube) -> float:
    """The leader's resident memory, MiB. LookupError when it does not run on this machine."""
    return pods.resident_bytes((await operators.leader(kube, SYSTEM))["metadata"]["uid"]) / 2**20


async def remove_all(kube: Kube, seconds: float = 180) -> None:
    """All that is called fleet-*, and its children."""
    for found in await kube.list_all("ModelDeployment", NAMESPACE):
        if found["metadata"]["name"].startswith("fleet-"):
            await kube.delete("ModelDeployment", NAMESPACE, found["metadata"]["name"])

    async def gone() -> bool:
        left = await kube.list_all("Deployment", NAMESPACE)
        return not any(d["metadata"]["name"].startswith("fleet-") for d in left)

    await kube.wait_until(gone, "the fleet's children are collected", seconds=seconds, every=1)


def _children(took: list[float], quick: bool) -> Result:
    p99 = percentile(took, 99)
    return Result(
        row="applied",
        what=f"CR applied → Deployment, Service, HPA exist (p99 of {len(took)})",
        goal=f"<= {_GOAL_MILLISECONDS} ms",
        measured=f"{p99:.0f} ms (p50 {percentile(took, 50):.0f}, longest {max(took):.0f})",
        kept=p99 <= _GOAL_MILLISECONDS,
        data={"milliseconds": [round(t, 1) for t in took]},
        quick=quick,
    )


def _memory(idle: float, full: float, count: int, quick: bool) -> Result:
    return Result(
        row="memory",
        what=f"operator RSS idle; with {count} ModelDeployments",
        goal=f"<= {_IDLE_MIB} MiB; <= {_FULL_MIB} MiB",
        measured=f"{idle:.0f} MiB; {full:.0f} MiB",
        kept=idle <= _IDLE_MIB and full <= _FULL_MIB,
        data={"idle_mib": round(idle, 1), "full_mib": round(full, 1), "count": count},
        quick=quick,
    )
