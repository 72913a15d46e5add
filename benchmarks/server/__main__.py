"""`python -m benchmarks.server`: ours and its peers under the same works, interleaved, in one run on this machine.

Writes benchmarks/results/server.json, server.md and charts. `--quick`, or a run of some servers only or of fewer than
5 rounds, does the same steps but for no number: its results are kept apart.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.server import charts, kept, report, rounds, venvs
from benchmarks.server.calibrate import Calibration, calibrate
from benchmarks.server.models import tiny
from benchmarks.server.promises import verdicts
from benchmarks.server.samples import Table
from benchmarks.server.servers import SERVERS
from benchmarks.server.session import Session
from inflight_demo.console import Console

_ROUNDS: Final = 5


def main() -> int:
    """Exit status 0: everything was measured and every goal kept. 1: a goal was missed. 2: not all was measured."""
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # servers are stopped either way
    console = Console(total=len(given.only) + 1)
    target = kept.file(full=given.full)
    if given.report:
        return _report(console, target)
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
            count = 1 if work == "crash" else given.rounds  # it counts failures, and takes long
            with console.step(f"{work}: {count} rounds"):
                servers = [server for server in taking_part if work in server.works]
                rounds.measure(work, servers, session, count, partial(kept.save, target=target))
    return _report(console, target)


def _session(calibration: Calibration, directory: Path, console: Console, given: argparse.Namespace) -> Session:
    mix, soak = (30.0, 30.0) if given.quick else (600.0, 1800.0) if given.soak else (60.0, 60.0)
    return Session(calibration, directory, console, given.seconds, mix, soak)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    works = _names(rounds.WORKS)
    parser.add_argument("--only", type=works, default=[*rounds.WORKS], metavar="W1,W2", help=", ".join(rounds.WORKS))
    servers = ", ".join(SERVERS)
    parser.add_argument("--servers", type=_names(SERVERS), default=[*SERVERS], metavar="A,B", help=servers)
    parser.add_argument("--rounds", type=int, default=0, help=f"how often each is measured ({_ROUNDS})")
    parser.add_argument("--seconds", type=int, default=0, help="how long each load lasts (6)")
    parser.add_argument("--soak", action="store_true", help="crash: ten minutes of the mix, and ours for half an hour")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--report", action="store_true", help="only write the report of what was kept")
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else _ROUNDS)
    given.seconds = given.seconds or (3 if given.quick else 6)
    given.full = not given.quick and given.rounds >= _ROUNDS and set(given.servers) == set(SERVERS)
    return given


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'}: must be some of {', '.join(known)}")
        return names

    return parse


def _report(console: Console, source: Path) -> int:
    runs = kept.load(source)
    source.with_suffix(".md").write_text(report.document(runs))
    table = Table([sample for run in runs.values() for sample in run.samples])
    charts.write(table, source.parent)
    judged = [verdict for verdict in verdicts(table) if verdict.work in runs]
    print()
    header = ("", "promise", "goal", "measured", "")
    console.show(header, [(v.work, v.what, str(v.goal), v.said(), report.word(v)) for v in judged])
    print(f"\nwritten: {source} and {source.with_suffix('.md').name}, and charts beside them")
    absent = any(v.kept is None for v in judged) or any(run.absent for run in runs.values())
    return 2 if absent else 0 if all(v.kept for v in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
