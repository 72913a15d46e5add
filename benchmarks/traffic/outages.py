"""The control plane goes away while requests come: what was routed is routed on, and afterwards all is as before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

from benchmarks.control.result import Result
from benchmarks.control.runner import Row
from benchmarks.control.world import NAMESPACE, World
from benchmarks.traffic.changes import in_force
from benchmarks.traffic.prober import lost, probing, serving, waiting
from inflight_cluster import processes
from inflight_cluster.settings import load
from inflight_demo.console import Console
from inflight_probe.kube import ApiError

_EFFECTIVE_SECONDS = 30


async def apiserver(world: World, console: Console) -> list[Result]:
    """The API server is killed, and started again after 60 s."""
    seconds = world.some(60, 5)
    async with _under_load(world, "apiserver", f"API server down for {seconds} s", 12_000) as made:
        await asyncio.to_thread(_killed, "kube-apiserver", seconds)
        made.append(await _effective(world, "apiserver"))
        console.say(f"a change was effective after {made[-1]:.1f} s")
    return [_judged(made)]


def etcd(seconds: int) -> Row:
    """etcd is stopped for so long, five times: the API server is there and answers 5xx.

    The controller manager ends meanwhile, as one does that leads by a Lease (kubeadm's; ours doesn't, it is the only
    one). One that goes on takes the nodes' late heartbeats for their death, once etcd is back, and all pods of the
    cluster turn unready for some seconds, the routers' Service included: 1,488 of 66,666 requests failed so.
    """

    async def row(world: World, console: Console) -> list[Result]:
        name, runs, stopped = f"etcd-{seconds}", world.some(5, 1), world.some(seconds, 5)
        what = f"etcd stopped for {seconds} s, {runs} times; the controller manager ends meanwhile"
        async with _under_load(world, name, what, 12_000) as made:
            for number in range(runs):
                with _ended("kube-controller-manager"), _stopped("etcd"):
                    await asyncio.sleep(stopped)
                made.append(await _effective(world, name))
                console.say(f"{seconds} s, run {number + 1}: a change was effective after {made[-1]:.1f} s")
        return [_judged(made)]

    return row


class _Made(list[float]):
    """How soon a change was effective after each outage, and the row that came of it."""

    result: Result


@asynccontextmanager
async def _under_load(world: World, row: str, what: str, at_least: int) -> AsyncIterator[_Made]:
    made = _Made()
    async with serving(world, waiting(row, {"stable": 90, "candidate": 10}, 2)):
        async with probing(world, row) as probe:
            await asyncio.sleep(3)
            yield made
            await asyncio.sleep(max(3.0, world.some(at_least, 100) / 200 - (time.perf_counter() - probe.began)))
        made.result = lost(row, what, probe, world, at_least=at_least, effective_s=[round(s, 1) for s in made])


def _judged(made: _Made) -> Result:
    goal = f"{made.result.goal}; a change right after is effective in <= {_EFFECTIVE_SECONDS} s"
    measured = f"{made.result.measured}; effective after {', '.join(f'{s:.1f}' for s in made)} s"
    return replace(made.result, goal=goal, measured=measured, kept=made.result.kept and max(made) <= _EFFECTIVE_SECONDS)


@contextlib.contextmanager
def _stopped(component: str) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end of the block."""
    pid = processes.running(load().layout.name)[component].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def _ended(component: str) -> Iterator[None]:
    """SIGKILL, and the same command again at the end of the block."""
    where = load().layout
    found = processes.running(where.name)[component]
    processes.kill([found.pid])
    try:
        yield
    finally:
        processes.start(where.name, component, found.arguments, where.logs / f"{component}.log")


def _killed(component: str, seconds: float) -> None:
    """SIGKILL, and the same command again after a while."""
    with _ended(component):
        time.sleep(seconds)


async def _effective(world: World, name: str) -> float:
    """Seconds until a change of the weights is in force, from the first attempt on; nobody helps."""
    began = time.monotonic()
    stored = None
    while stored is None:
        with contextlib.suppress(ApiError, OSError, TimeoutError):
            async with asyncio.timeout(5):
                stored = await world.kube.get("ModelDeployment", NAMESPACE, name)
    stable = 80 if stored["spec"]["variants"][0]["weight"] == 90 else 90
    patch = [
        {"op": "replace", "path": f"/spec/variants/{n}/weight", "value": value}
        for n, value in enumerate((stable, 100 - stable))
    ]
    while True:
        with contextlib.suppress(ApiError, OSError, TimeoutError):
            async with asyncio.timeout(5):
                await world.kube.patch("ModelDeployment", NAMESPACE, name, patch)
                break
        await asyncio.sleep(0.2)
    await in_force(world, name, {"stable": stable, "candidate": 100 - stable})
    return time.monotonic() - began
