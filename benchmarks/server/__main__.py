"""`python -m benchmarks.server`: ours and its peers under the same works, interleaved, in one run on this machine.

Writes benchmarks/results/server.json, server.md and charts. `--quick` runs the same steps too few times for a number;
its results are kept apart.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import uvloop

from benchmarks.server import charts, kept, report, venvs
from benchmarks.server.calibrate import Calibration, calibrate
from benchmarks.server.models import tiny
from benchmarks.server.promises import verdicts
from benchmarks.server.samples import Sample, Table
from benchmarks.server.servers import SERVERS
from benchmarks.server.session import NoAnswerError, Session
from benchmarks.server.starting import Server
from benchmarks.server.works import crashes, footprint, limits, overload, peak, throughput
from inflight_demo.console import Console

WORKS: Final = ("W1", "W2", "W3", "W4", "W5", "crash")
LIMITS: Final = {"W2": limits.chains, "W3": limits.rows}


def main() -> int:
    """Exit status 0: everything was measured and every goal kept. 1: a goal was missed. 2: not all was measured."""
    given = _arguments()
    console = Console(total=len(given.only) + 1)
    if given.report:
        return _report(console, quick=given.quick)
    taking_part = [SERVERS[name] for name in given.servers]
    with console.step("environments and models"):
        for name in dict.fromkeys(["ours", *(server.environment for server in taking_part)]):
            console.say(f"{name}: {'installed' if venvs.ensure(name) else 'there'}")
        tiny.write(venvs.home() / "models")
        calibration = calibrate()
        console.say(str(calibration))
    with tempfile.TemporaryDirectory(prefix="inflight-bench-") as directory:
        session = _session(calibration, Path(directory), console, given)
        for work in given.only:
            with console.step(f"{work}: {given.rounds} rounds"):
                run = _measured(work, [s for s in taking_part if work in s.works], session, given.rounds)
                kept.save(run, kept.file(quick=given.quick))
    return _report(console, quick=given.quick)


def _session(calibration: Calibration, directory: Path, console: Console, given: argparse.Namespace) -> Session:
    mix, soak = (30.0, 30.0) if given.quick else (60.0, 60.0)
    if given.soak:
        mix, soak = 600.0, 1800.0
    return Session(calibration, directory, console, given.seconds, mix, soak)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--only", type=_names(WORKS), default=list(WORKS), metavar="W1,W2", help=", ".join(WORKS))
    parser.add_argument(
        "--servers", type=_names(SERVERS), default=list(SERVERS), metavar="A,B", help=", ".join(SERVERS)
    )
    parser.add_argument("--rounds", type=int, default=0, help="how often each is measured (5)")
    parser.add_argument("--seconds", type=int, default=0, help="how long each load lasts (6)")
    parser.add_argument("--soak", action="store_true", help="crash: ten minutes of the mix, and ours for half an hour")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--report", action="store_true", help="only write the report of what was kept")
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 5)
    given.seconds = given.seconds or (3 if given.quick else 6)
    return given


def _names(known: Sequence[str] | object):  # type: ignore[no-untyped-def]
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        unknown = [name for name in names if name not in known]  # type: ignore[operator]
        if unknown or not names:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'}: must be some of {', '.join(known)}")  # type: ignore[arg-type]
        return names

    return parse


def _measured(work: str, servers: list[Server], session: Session, rounds: int) -> kept.Run:
    samples: list[Sample] = []
    absent: list[str] = []
    averages = []
    began = kept.now()
    for number in range(rounds):
        averages.append(round(os.getloadavg()[0], 2))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_round(work, _rotated(servers, number), session, number=number, samples=samples, absent=absent))
    versions = {server.environment: venvs.versions(server.environment) for server in servers}
    costs = {name: float(value) for name, value in asdict(session.calibration).items()}
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return kept.Run(
        work,
        began,
        kept.machine(),
        commit.stdout.strip(),
        rounds,
        session.seconds,
        costs,
        versions,
        averages,
        samples,
        absent,
    )


def _rotated(servers: list[Server], number: int) -> list[Server]:
    """Nobody is always the first."""
    first = number % max(1, len(servers))
    return servers[first:] + servers[:first]


async def _round(
    work: str, servers: list[Server], session: Session, *, number: int, samples: list[Sample], absent: list[str]
) -> None:
    capacity = 0.0
    if work in LIMITS:
        samples.append(await LIMITS[work](session, number))
        session.console.say(report.line(samples[-1]))
        capacity = samples[-1].values.get("goodput", 0.0)
    for server in servers:
        try:
            async for sample in _loads(work, server, session, number, capacity):
                samples.append(sample)
                session.console.say(report.line(sample))
        except (NoAnswerError, OSError, RuntimeError) as error:
            absent.append(f"round {number + 1}: {server.title}: {error}")
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


def _report(console: Console, *, quick: bool) -> int:
    source = kept.file(quick=quick)
    runs = kept.load(source)
    source.with_suffix(".md").write_text(report.document(runs))
    table = Table([sample for run in runs.values() for sample in run.samples])
    charts.write(table, source.parent)
    found = verdicts(table)
    print()
    header = ("", "promise", "goal", "measured", "")
    console.show(header, [(v.work, v.what, str(v.goal), v.said(), report.word(v)) for v in found])
    print(f"\nwritten: {source} and {source.with_suffix('.md').name}, and charts beside them")
    judged = [v for v in found if v.work in runs]
    absent = any(v.kept is None for v in judged) or any(run.absent for run in runs.values())
    return 2 if absent else 0 if all(v.kept for v in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
