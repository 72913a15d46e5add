"""One slow pod of five on the cluster: what hedging and degrading make of the slowest answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.control.result import Result
from benchmarks.control.world import NAMESPACE, World
from benchmarks.traffic.prober import probing, serving, waiting
from inflight_demo.console import Console
from inflight_probe import pods
from inflight_probe.load import Run, window
from inflight_probe.scaling import OWNER

_PODS, _WAIT, _SLOTS = 5, 40, 4
_RATE = 0.5 * _PODS * _SLOTS / (_WAIT / 1000)
_STOPPED, _RUNNING = 0.36, 0.04
"""Seconds: a pod that gets a tenth of the time, as beside a noisy neighbour."""
_SETTLING = 40


async def slow_pod(world: World, console: Console) -> list[Result]:
    """The same load twice on the same pods, first without hedging, then with it."""
    name, seconds = "slow-pod", world.some(60, 5)
    made = waiting(name, {"main": 100}, _PODS, wait=_WAIT, concurrency=_SLOTS, traffic={"idempotent": True})
    phases: dict[str, tuple[float, float]] = {}
    async with serving(world, made):
        found = await world.kube.list_all("Pod", NAMESPACE, f"{OWNER}={name}")
        async with _slowed(found[0]["metadata"]["uid"]), probing(world, name, rate=_RATE) as probe:
            await asyncio.sleep(5)
            phases["without"] = await _phase(probe.began, seconds)
            hedging = {"spec": {"traffic": {"hedging": {"budgetPercent": 5}}}}
            await world.kube.patch("ModelDeployment", NAMESPACE, name, hedging)
            await asyncio.sleep(world.some(_SETTLING, 12))
            phases["hedged"] = await _phase(probe.began, seconds)
            told = (await world.kube.get("ModelDeployment", NAMESPACE, name) or {})["status"].get("hedging")
            console.say(f"status.hedging: {told}")
    runs = {phase: window(probe.run.outcomes, *times) for phase, times in phases.items()}
    return [_judged(world, runs, told, len(probe.run.failed))]


async def _phase(began: float, seconds: float) -> tuple[float, float]:
    start = time.perf_counter() - began
    await asyncio.sleep(seconds)
    return start, start + seconds


@asynccontextmanager
async def _slowed(uid: str) -> AsyncIterator[None]:
    """The pod's processes are stopped most of the time, for as long as the block runs."""
    pids = pods.processes(uid)

    def send(number: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def slow() -> None:
        while True:
            send(signal.SIGSTOP)
            await asyncio.sleep(_STOPPED)
            send(signal.SIGCONT)
            await asyncio.sleep(_RUNNING)

    task = asyncio.create_task(slow())
    try:
        yield
    finally:
        task.cancel()
        send(signal.SIGCONT)


def _judged(world: World, runs: dict[str, Run], told: object, failed: int) -> Result:
    without, hedged = (run.milliseconds(99) for run in runs.values())
    return Result(
        suite="traffic",
        row="slow-pod",
        what="one of 5 pods gets a tenth of the time, half of what they can do is asked, idempotent",
        goal="p99 <= 0.5x of without hedging; 0 failed",
        measured=f"p99 {hedged:.0f} ms, {hedged / without:.2f}x of {without:.0f} ms (p50 "
        f"{runs['hedged'].milliseconds(50):.0f} and {runs['without'].milliseconds(50):.0f} ms); {failed} failed",
        kept=hedged <= 0.5 * without and not failed,
        data={"status": told, "why": {phase: dict(run.why()) for phase, run in runs.items()}},
        quick=world.quick,
    )
