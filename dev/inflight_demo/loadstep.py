"""A step of load on a model that waits, and how the HPA follows it, told as a live table."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inflight_demo.console import live_line
from inflight_probe.infer import Target, output, request_body, sender, session
from inflight_probe.kube import Kube
from inflight_probe.load import Outcome, Send, closed_loop, window
from inflight_probe.scaling import Scale, scale
from inflight_probe.stats import percentile

_HEADER = ("time s", "in flight", "metric", "desired", "ready", "answers/s", "p50 ms", "p99 ms", "refused")
_WIDTHS = tuple(len(word) for word in _HEADER)
_EVERY = 1.0


@dataclass(frozen=True)
class Phase:
    """`clients` that each keep one request in flight, from `start` to `end` (s since the step began)."""

    start: float
    end: float
    clients: int


@dataclass(frozen=True)
class Sample:
    """One look: seconds since the step began, requests kept in flight then, and the revision's scale."""

    at: float
    in_flight: int
    scale: Scale


@dataclass
class Trace:
    """A whole step: every answer (times since the step began) and every look."""

    outcomes: list[Outcome] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


Seen = Callable[[Trace], None]
Enough = Callable[[Sequence[Sample]], bool]


async def play(
    kube: Kube,
    target: Target,
    watched: tuple[str, str],
    phases: Sequence[Phase],
    *,
    seen: Seen = lambda _: None,
    enough: Enough = lambda _: False,
) -> Trace:
    """Play `phases` on `target` while sampling the revision `watched` (namespace, name).

    `seen` hears of each sample; the step ends with the last phase, or before it when `enough` says so.
    """
    trace, began = Trace(), time.perf_counter()

    async def sample() -> None:
        while not enough(trace.samples):
            looked = await scale(kube, *watched)
            now = time.perf_counter() - began
            in_flight = sum(p.clients for p in phases if p.start <= now < p.end)
            trace.samples.append(Sample(now, in_flight, looked))
            seen(trace)
            await asyncio.sleep(max(now + _EVERY - (time.perf_counter() - began), 0))

    async with session() as http:
        send = sender(http, target, [request_body("x", [[1.0]])], _first_value)

        async def load() -> None:
            await asyncio.gather(*(_phase(phase, send, began, trace) for phase in phases))

        await _until_one_ends(load(), sample())
    return trace


async def _until_one_ends(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all until the first is done, then stop the others; raises what any of them raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _phase(phase: Phase, send: Send, began: float, trace: Trace) -> None:
    await asyncio.sleep(max(began + phase.start - time.perf_counter(), 0))
    offset = time.perf_counter() - began

    def seen(o: Outcome) -> None:
        trace.outcomes.append(Outcome(o.number, o.due + offset, o.seconds, o.reply))

    await closed_loop(send, clients=phase.clients, seconds=phase.end - offset, seen=seen)


def _first_value(_number: int, answer: Mapping[str, Any]) -> float:
    return float(output(answer))


def reached(samples: Sequence[Sample], replicas: int, hold: float) -> bool:
    """Whether desired and ready have both been `replicas` for the last `hold` seconds."""
    if not samples or samples[-1].at - samples[0].at < hold:
        return False
    recent = [s.scale for s in samples if s.at >= samples[-1].at - hold]
    return all(s.desired == s.ready == replicas for s in recent)


def header() -> str:
    """The live table's first line."""
    return live_line(_HEADER, _WIDTHS)


def row(trace: Trace, since: float) -> str:
    """The live table's next line: the scale now, and the answers that came in the last `since` seconds."""
    sample = trace.samples[-1]
    part = window(trace.outcomes[-2000:], sample.at - since, sample.at)
    times = [1000 * o.seconds for o in part.ok]
    known = not math.isnan(sample.scale.metric)
    values = (
        f"{sample.at:.0f}",
        sample.in_flight,
        f"{sample.scale.metric:.1f}" if known else "–",
        sample.scale.desired or "–",
        sample.scale.ready,
        f"{part.rate:.0f}",
        f"{percentile(times, 50):.0f}" if times else "–",
        f"{percentile(times, 99):.0f}" if times else "–",
        len(part.refused),
    )
    return live_line(values, _WIDTHS)
