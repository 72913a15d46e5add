"""Changes under load: weights turned over and back, and a model replaced, at 200 requests a second.

The load is an open loop without retries on a model that waits 50 ms at concurrency 2: what is lost is seen. The
length of a pod's queue is what it is when nobody sets it. So is the target per pod, its concurrency, with which the HPA
leaves no room for what comes by chance: queues overflow also without any change. Or it is half of that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.control.result import Result
from benchmarks.control.world import NAMESPACE, SECOND_WAITING, WAITING, World, deployment, variant
from inflight_demo import ready
from inflight_demo.console import Console
from inflight_probe.infer import output, request_body, sender, session, through
from inflight_probe.kube import Object
from inflight_probe.load import Run, steady
from inflight_probe.scaling import OWNER, VARIANT

_RATE = 200.0
_WAIT_MILLISECONDS = 50
_BUSY = _RATE * _WAIT_MILLISECONDS / 1000
"""Requests in flight when all are answered in time."""
_CONCURRENCY = 2
_START = 10
_WINDOW_SECONDS = 30
_AUTOSCALING = {
    "minReplicas": _START,
    "maxReplicas": 14,
    "scaleDownStabilizationSeconds": _WINDOW_SECONDS,
}
_SERVER = {
    "concurrency": _CONCURRENCY,
    "podTemplate": {"env": [{"name": "INFLIGHT_EXAMPLE_WAIT_MS", "value": str(_WAIT_MILLISECONDS)}]},
}
_CHANGED = "change begins"
_CHANGE_SECONDS = 300
_SETTLE_SECONDS = 240
_STEADY_SECONDS = 16
"""More than the HPA's period: it has looked and left everything as it is."""


@dataclass
class Load:
    """The requests in the background. `run` is complete when the load has ended; `mark` names moments of it."""

    began: float
    run: Run = field(default_factory=Run)
    marks: dict[str, float] = field(default_factory=dict)

    def mark(self, what: str) -> None:
        """Remember when something happened (s since the load began)."""
        self.marks[what] = round(time.perf_counter() - self.began, 2)


async def turned_over(world: World, console: Console) -> list[Result]:
    """95/5 → 5/95 → 95/5 with room in every pod."""
    return await _turned_over(world, console, "turned-over", target=_CONCURRENCY // 2)


async def turned_over_without_room(world: World, console: Console) -> list[Result]:
    """The same with the target per pod that nobody has set."""
    return await _turned_over(world, console, "turned-over-full", target=None)


async def _turned_over(world: World, console: Console, name: str, target: int | None) -> list[Result]:
    """Each shift has ended when the status says that the weights are in force."""
    both = [_waiting("stable", 95), _waiting("candidate", 5)]
    autoscaling = _AUTOSCALING if target is None else {**_AUTOSCALING, "targetInFlight": target}
    async with world.deployed(deployment(name, both, _SERVER, autoscaling)):
        await _full(world, name)
        async with _load(world, name) as load:
            await _settled(world, name, console)
            load.mark(_CHANGED)
            for stable in (5, 95):
                await _weights(world, name, stable)
                await _in_force(world, name, {"stable": stable, "candidate": 100 - stable})
                load.mark(f"{stable}/{100 - stable} in force")
                await asyncio.sleep(5)
            await _enough(world, load)
    return [_result(world, name, "95/5 → 5/95 → 95/5 under 200 requests/s", load, {"target": target or _CONCURRENCY})]


async def replaced(world: World, console: Console) -> list[Result]:
    """A variant's model replaced; the ready pods of all its revisions are watched all the while."""
    name = "replaced"
    async with world.deployed(deployment(name, [_waiting("main", 100)], _SERVER, _AUTOSCALING)):
        least: list[int] = []
        await _full(world, name)
        async with _load(world, name) as load, _watched(world, name, least):
            await _settled(world, name, console)
            load.mark(_CHANGED)
            least.clear()
            stored = await world.kube.get("ModelDeployment", NAMESPACE, name) or {}
            before = stored["status"]["variants"][0]["revision"]
            patch = [
                {
                    "op": "replace",
                    "path": "/spec/variants/0/model",
                    "value": _waiting("main", 100, SECOND_WAITING)["model"],
                }
            ]
            await world.kube.patch("ModelDeployment", NAMESPACE, name, patch)
            done = await ready.wait_ready(world.kube, NAMESPACE, name, seconds=_CHANGE_SECONDS, say=console.say)
            load.mark("ready")
            assert done["status"]["variants"][0]["revision"] != before, "the model was not replaced"
            await _enough(world, load)
    needed = -(-int(_BUSY) // _CONCURRENCY)
    data = {"fewest_ready_pods": min(least), "needed": needed, "target": _CONCURRENCY}
    return [_result(world, "replaced", "a variant's model replaced under 200 requests/s", load, data)]


def _waiting(name: str, weight: int, key: str = WAITING) -> Object:
    return variant(name, weight, key, format="python", entrypoint="model:Sleep")


async def _full(world: World, name: str) -> None:
    """Wait until every variant has all the pods that the start asks for."""

    async def full() -> bool:
        found = await world.kube.list_all("Deployment", NAMESPACE, f"{OWNER}={name}")
        return all(d.get("status", {}).get("readyReplicas", 0) == _START for d in found)

    await world.kube.wait_until(full, f"{_START} ready pods of each variant of {name}", seconds=_SETTLE_SECONDS)


async def _settled(world: World, name: str, console: Console) -> None:
    """Wait until the HPAs, freed of the minimum that the start needed, have made what the load needs and no more."""
    await world.kube.patch("ModelDeployment", NAMESPACE, name, {"spec": {"autoscaling": {"minReplicas": 1}}})
    told: list[tuple[int, int]] = []

    async def steady_now() -> bool:
        hpas = await world.kube.list_all("HorizontalPodAutoscaler", NAMESPACE, f"{OWNER}={name}")
        found = await world.kube.list_all("Deployment", NAMESPACE, f"{OWNER}={name}")
        wanted = sum(h.get("status", {}).get("desiredReplicas", 0) for h in hpas)
        told.append((wanted, sum(d.get("status", {}).get("readyReplicas", 0) for d in found)))
        freed = len(told) > _WINDOW_SECONDS + 2 * _STEADY_SECONDS
        return freed and len(set(told[-_STEADY_SECONDS:])) == 1 and wanted == told[-1][1]

    await world.kube.wait_until(steady_now, f"{name} has a steady size", seconds=_SETTLE_SECONDS, every=1)
    console.say(f"settled after {len(told)} s: {told[-1][1]} pods")


@asynccontextmanager
async def _load(world: World, name: str) -> AsyncIterator[Load]:
    """200 requests/s for as long as the block runs; all answers are in when it ends."""
    load = Load(time.perf_counter())
    body = [request_body("x", [[1.0]])]
    async with session(timeout_seconds=30) as http:
        send = sender(http, through(world.router, NAMESPACE, name), body, lambda _n, answer: output(answer))
        async with steady(send, rate=_RATE) as load.run:
            yield load


@asynccontextmanager
async def _watched(world: World, name: str, least: list[int]) -> AsyncIterator[None]:
    """Note the ready pods of all revisions together, ten times a second."""

    async def look() -> None:
        while True:
            found = await world.kube.list_all("Deployment", NAMESPACE, f"{OWNER}={name},{VARIANT}")
            least.append(sum(d.get("status", {}).get("readyReplicas", 0) for d in found))
            await asyncio.sleep(0.1)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _weights(world: World, name: str, stable: int) -> None:
    patch: Sequence[Mapping[str, Any]] = [
        {"op": "replace", "path": "/spec/variants/0/weight", "value": stable},
        {"op": "replace", "path": "/spec/variants/1/weight", "value": 100 - stable},
    ]
    await world.kube.patch("ModelDeployment", NAMESPACE, name, list(patch))


async def _in_force(world: World, name: str, weights: Mapping[str, int]) -> None:
    def done(found: Object | None) -> bool:
        told = (found or {}).get("status", {}).get("variants", [])
        return {v["name"]: v["effectiveWeight"] for v in told} == weights

    await world.kube.wait("ModelDeployment", NAMESPACE, name, done, seconds=_CHANGE_SECONDS)


async def _enough(world: World, load: Load) -> None:
    """Go on until at least 10,000 requests were due since the change began, and it is over for 5 s."""
    until = load.began + load.marks[_CHANGED] + world.some(10_000, 500) / _RATE + 1
    await asyncio.sleep(max(until - time.perf_counter(), 5))


def _since(run: Run, moment: float) -> Run:
    """The requests that were due since `moment`: those of the change, not of its preparation."""
    return Run([o for o in run.outcomes if o.due >= moment], run.elapsed - moment)


def _result(world: World, row: str, what: str, load: Load, data: Mapping[str, Any]) -> Result:
    run, few = _since(load.run, load.marks[_CHANGED]), data.get("fewest_ready_pods")
    measured = f"{len(run.failed)} failed of {len(run.outcomes):,} (p50 {run.milliseconds(50):.0f} ms, "
    measured += f"p99 {run.milliseconds(99):.0f} ms)"
    before = Run([o for o in load.run.outcomes if o.due < load.marks[_CHANGED]], load.marks[_CHANGED])
    measured += f"; before the change, while the HPAs settled: {len(before.failed)} failed of {len(before.outcomes):,}"
    if few is not None:
        measured += f"; never fewer than {few} ready pods, {data['needed']} needed"
    enough = len(run.outcomes) >= world.some(10_000, 500)
    return Result(
        row=row,
        what=f"{what}, a model that waits 50 ms at concurrency 2, target per pod {data['target']}"
        + (" and maxQueue 8 by default" if data["target"] == _CONCURRENCY else ", maxQueue 8 by default"),
        goal="0 failed of >= 10,000" + ("; never fewer ready pods than needed" if few is not None else ""),
        measured=measured,
        kept=enough and not run.failed and (few is None or few >= data["needed"]),
        data={
            "marks_s": load.marks,
            "why": dict(run.why()),
            "why_before": dict(before.why()),
            "variants": dict(run.variants()),
            **data,
        },
        quick=world.quick,
    )
