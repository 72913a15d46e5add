"""A load step from 1 to 8 requests in flight and back: how true the metric is, how soon the HPA follows, how far.

The model waits 100 ms and the target is 1, so the right number of replicas is the number in flight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.control.result import Result
from benchmarks.control.world import NAMESPACE, WAITING, World, deployment, variant
from inflight_demo import loadstep
from inflight_demo.console import Console
from inflight_demo.loadstep import Phase, Sample, Trace
from inflight_probe.infer import through
from inflight_probe.load import Run
from inflight_probe.scaling import revision_of

_CLIENTS = 8
_MOST = 9
_DEADLINE = 45.0
_SETTLED = 10.0
_WINDOW = 60
_SYNC = 15.0


async def step(world: World, console: Console) -> list[Result]:
    """One in flight, eight, one; with a stabilisation window of a minute."""
    quiet, busy, after = world.some(30, 10), world.some(90, 20), world.some(_WINDOW + 60, 10)
    phases = [Phase(0, quiet, 1), Phase(quiet, quiet + busy, _CLIENTS), Phase(quiet + busy, quiet + busy + after, 1)]
    autoscaling = {"maxReplicas": 12, "targetInFlight": 1, "scaleDownStabilizationSeconds": _WINDOW}
    waiting = variant("main", 100, WAITING, format="python", entrypoint="model:Sleep")
    async with world.deployed(deployment("step", [waiting], {"maxQueue": 16}, autoscaling)):
        revision = await revision_of(world.kube, NAMESPACE, "step")
        console.say(loadstep.header())
        trace = await loadstep.play(
            world.kube,
            through(world.router, NAMESPACE, "step"),
            (NAMESPACE, revision),
            phases,
            seen=lambda t: console.say(loadstep.row(t, 5)) if len(t.samples) % 5 == 1 else None,
        )
    return [_result(trace, phases, world.quick)]


def _result(trace: Trace, phases: Sequence[Phase], quick: bool) -> Result:
    up, down = phases[1].start, phases[2].start
    off = worst_error(trace.samples, phases)
    reached = first(trace.samples, up, lambda s: s.scale.desired >= _CLIENTS)
    again = first(trace.samples, down, lambda s: s.scale.desired == 1)
    most = max(s.scale.desired for s in trace.samples)
    failed = sum(not o.ok for o in trace.outcomes)
    in_time = reached <= _DEADLINE and _WINDOW - _SYNC <= again <= _WINDOW + 2 * _SYNC
    return Result(
        row="step",
        what="load step 1 → 8 → 1 in flight on a model that waits 100 ms, target 1, HPA sync 15 s",
        goal=f"metric within 10 %; desired 8 within {_DEADLINE:.0f} s; 1 again after the stabilisation window; "
        f"no overshoot above {_MOST}",
        measured=f"metric off by {off:.0f} % at most; desired 8 after {reached:.0f} s; 1 again {again:.0f} s after the "
        f"load went (window {_WINDOW} s); {most} at most; {failed} of {len(trace.outcomes):,} requests failed",
        kept=off <= 10 and in_time and most <= _MOST and not failed,
        data={
            "why": dict(Run(trace.outcomes).why()),
            "samples": [
                (round(s.at, 1), s.in_flight, round(s.scale.metric, 2), s.scale.desired, s.scale.ready)
                for s in trace.samples
            ],
        },
        quick=quick,
    )


def worst_error(samples: Sequence[Sample], phases: Sequence[Phase]) -> float:
    """The metric's largest error in percent, in every phase once it is 10 s old; no reading is 100 %."""
    errors = [0.0]
    for sample in samples:
        if any(p.start + _SETTLED <= sample.at < p.end for p in phases):
            known = not math.isnan(sample.scale.metric)
            errors.append(100 * abs(sample.scale.metric - sample.in_flight) / sample.in_flight if known else 100.0)
    return max(errors)


def first(samples: Sequence[Sample], since: float, holds) -> float:  # type: ignore[no-untyped-def]
    """Seconds from `since` until a sample for which `holds` is true; infinite when none is."""
    return next((s.at - since for s in samples if s.at >= since and holds(s)), math.inf)
