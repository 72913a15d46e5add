"""Who asks while something happens: an open loop of 200 requests/s without retries, every answer checked.

Each request carries a number of its own, which the model has to send back: an answer that is somebody else's is a
failure, as is one that does not say which variant gave it. Times of what happened are kept with the outcomes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.control.change import Load
from benchmarks.control.result import Result
from benchmarks.control.world import NAMESPACE, WAITING, World, deployment, variant
from inflight_probe.infer import output, request_body, sender, session, through
from inflight_probe.kube import Object
from inflight_probe.load import steady
from inflight_probe.scaling import OWNER

RATE = 200.0
WAIT_MILLISECONDS = 20
_NUMBERS = 97
_BODIES = tuple(request_body("x", [[float(n)]]) for n in range(_NUMBERS))


class Probe(Load):
    """The requests of one row."""

    @property
    def asked(self) -> int:
        """Requests that are due by now."""
        return int((time.perf_counter() - self.began) * RATE)


def _own(number: int, answer: Mapping[str, Any]) -> float:
    found = float(output(answer))
    if found != number % _NUMBERS:
        raise ValueError(f"{found} for {number % _NUMBERS}")
    return found


@asynccontextmanager
async def serving(world: World, made: Object) -> AsyncIterator[str]:
    """The ModelDeployment with all its pods, for as long as the block runs; its name."""
    name = made["metadata"]["name"]
    async with world.deployed(made):
        await world.kube.wait_until(lambda: all_ready(world, name), f"all pods of {name}", seconds=180)
        await asyncio.sleep(3)  # what starts with a pod is over
        yield name


async def all_ready(world: World, name: str) -> bool:
    """Whether every pod that there should be is ready."""
    found = await world.kube.list_all("Deployment", NAMESPACE, f"{OWNER}={name}")
    return all(d["status"].get("readyReplicas", 0) == d["spec"]["replicas"] for d in found)


@asynccontextmanager
async def probing(world: World, name: str, rate: float = RATE, namespace: str = NAMESPACE) -> AsyncIterator[Probe]:
    """Load for as long as the block runs; all answers are in when it ends."""
    async with session(timeout_seconds=60) as http:
        send = sender(http, through(world.router, namespace, name), _BODIES, _own)
        async with steady(send, rate=rate) as run:
            yield Probe(time.perf_counter(), run)


def waiting(
    name: str,
    weights: Mapping[str, int],
    replicas: int,
    *,
    most: int | None = None,
    wait: int = WAIT_MILLISECONDS,
    concurrency: int = 16,
    timeout: int = 10_000,
    key: str = WAITING,
    **spec: Any,
) -> Object:
    """A ModelDeployment of variants that wait and use no CPU, with room for all that is asked.

    The queue is for the machine: where pods start, the others may get no CPU for a moment.
    """
    variants = [variant(v, weight, key, format="python", entrypoint="model:Sleep") for v, weight in weights.items()]
    server = {
        "concurrency": concurrency,
        "isolation": "thread",
        "maxQueue": 100,
        "timeoutMilliseconds": timeout,
        "podTemplate": {"env": [{"name": "INFLIGHT_EXAMPLE_WAIT_MS", "value": str(wait)}]},
    }
    scaling = {
        "minReplicas": replicas,
        "maxReplicas": most or replicas,
        "scaleDownStabilizationSeconds": 0,
    }
    made = deployment(name, variants, server, scaling)
    made["spec"].update(spec)
    return made


def lost(row: str, what: str, probe: Probe, world: World, *, at_least: int, allowed: int = 0, **data: Any) -> Result:
    """The row of something that may fail `allowed` requests, and usually none."""
    run = probe.run
    enough = len(run.outcomes) >= world.some(at_least, 100)
    measured = f"{len(run.failed)} failed of {len(run.outcomes):,} (p50 {run.milliseconds(50):.0f} ms, "
    measured += f"p99 {run.milliseconds(99):.0f} ms)"
    return Result(
        suite="traffic",
        row=row,
        what=what,
        goal=f"{allowed or 0} failed of >= {at_least:,}" if not allowed else f"<= {allowed} failed of >= {at_least:,}",
        measured=measured,
        kept=enough and len(run.failed) <= allowed,
        data={
            "marks_s": probe.marks,
            "why": dict(run.why()),
            "when_s": [round(o.due, 2) for o in run.failed][:200],
            "variants": dict(run.variants()),
            **data,
        },
        quick=world.quick,
    )
