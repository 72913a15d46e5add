"""`python -m benchmarks.control [ROW ...] [--quick]`: measure rows of docs/numbers.md on the cluster that is up.

Without rows: all but the demo's times. `report` only writes docs/numbers.md from what was kept. `--quick` runs the
same steps too few times for a number, to see that they work; its results are kept apart.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence

from benchmarks.control import change, demo, fleet, numbers, quiet, refusal, routing, split, step
from benchmarks.control.result import Result, load_all
from benchmarks.control.runner import Row, conclude, kept, measure
from inflight_demo.console import Console

ROWS: Mapping[str, Row] = {
    "applied": fleet.applied,
    "weights": routing.patched,
    "endpoints": routing.ready_endpoints,
    "split": split.split,
    "turned-over": change.turned_over,
    "turned-over-full": change.turned_over_without_room,
    "replaced": change.replaced,
    "step": step.step,
    "refusal": refusal.refusal,
    "quiet": quiet.quiet,
}
_SAME_AS = {"memory": "applied"}


def main() -> int:
    """Exit status 0: every row was measured and kept its goal. 1: one missed. 2: one could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.control", description=__doc__)
    names = [*ROWS, *_SAME_AS, "demo", "report"]
    parser.add_argument("rows", nargs="*", metavar="ROW", choices=[[], *names], help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    arguments = parser.parse_args()
    rows = list(dict.fromkeys(_SAME_AS.get(row, row) for row in arguments.rows or ROWS))
    console = Console(total=len(rows))
    results, broken = _measure([row for row in rows if row != "report"], console, quick=arguments.quick)
    if not arguments.quick:
        numbers.write(load_all())
    return conclude(results, broken, console)


def _measure(rows: Sequence[str], console: Console, *, quick: bool) -> tuple[list[Result], list[str]]:
    results: list[Result] = []
    broken: list[str] = []
    if "demo" in rows:  # from outside the cluster's network, so before it is entered
        with console.step("demo"):
            results.append(kept(demo.timed(console, quick=quick)))
    if inside := [row for row in rows if row != "demo"]:
        asyncio.run(measure(ROWS, inside, console, results, broken, quick=quick))
    return results, broken


if __name__ == "__main__":
    sys.exit(main())
