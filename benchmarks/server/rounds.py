"""Works measured round by round: every server in each round, nobody always the first."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import uvloop

from benchmarks.server import kept, report, venvs
from benchmarks.server.samples import Sample
from benchmarks.server.session import NoAnswerError, Session
from benchmarks.server.starting import Server
from benchmarks.server.works import crashes, footprint, limits, overload, peak, throughput

WORKS: Final = ("W1", "W2", "W3", "W4", "W5", "crash")
_LIMITS: Final[Mapping[str, Callable[[Session, int], Awaitable[Sample]]]] = {
    "W2": limits.chains,
    "W3": limits.rows,
}


@dataclass
class _Found:
    """What a work has come to so far."""

    samples: list[Sample] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    load_averages: list[float] = field(default_factory=list)


def measure(
    work: str, servers: Sequence[Server], session: Session, rounds: int, keep: Callable[[kept.Run], None]
) -> None:
    """Measure one work; what there is after each round is kept, so that a run that is ended early isn't lost."""
    found, began, started = _Found(), kept.now(), time.monotonic()
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    versions = {server.environment: venvs.versions(server.environment) for server in servers}
    costs = {name: float(value) for name, value in asdict(session.calibration).items()}
    for number in range(rounds):
        found.load_averages.append(round(os.getloadavg()[0], 2))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_round(work, _rotated(servers, number), session, number, found))
        run = kept.Run(
            work=work,
            when=began,
            machine=kept.machine(),
            commit=commit.stdout.strip(),
            rounds=number + 1,
            seconds=session.seconds,
            calibration=costs,
            versions=versions,
            load_averages=found.load_averages,
            samples=found.samples,
            absent=found.absent,
        )
        keep(run)
        left = (time.monotonic() - started) / (number + 1) * (rounds - number - 1)
        session.console.say(f"{work}: {number + 1} of {rounds} rounds, about {left / 60:.0f} min left")


def _rotated(servers: Sequence[Server], number: int) -> list[Server]:
    first = number % max(1, len(servers))
    return [*servers[first:], *servers[:first]]


async def _round(work: str, servers: Sequence[Server], session: Session, number: int, found: _Found) -> None:
    capacity = 0.0
    if work in _LIMITS:
        found.samples.append(await _LIMITS[work](session, number))
        session.console.say(report.line(found.samples[-1]))
        capacity = found.samples[-1].values.get("goodput", 0.0)
    for server in servers:
        try:
            async for sample in _loads(work, server, session, number, capacity):
                found.samples.append(sample)
                session.console.say(report.line(sample))
        except (NoAnswerError, OSError, RuntimeError) as error:
            found.absent.append(f"round {number + 1}: {server.title}: {error}")
            session.console.say(f"round {number + 1}  {server.title}: not measured: {error}")


async def _loads(work: str, server: Server, session: Session, number: int, capacity: float) -> AsyncIterator[Sample]:
    """All samples of a server in one round of a work."""
    parts = [overload.measure(server, session, number, capacity)] if work == "W2" else []
    parts += [crashes.measure(server, session, number)] if work == "crash" else []
    parts += [footprint.measure(server, session, number)] if work == "W5" else []
    parts += [peak.measure(server, session, number)] if work == "W4" and server.kind != "ceiling" else []
    parts += [throughput.measure(server, work, session, number)] if work in throughput.CONNECTIONS else []
    for part in parts:
        async for sample in part:
            yield sample
