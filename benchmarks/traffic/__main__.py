"""`python -m benchmarks.traffic [ROW ...] [--quick]`: rows of docs/numbers-traffic.md, on the cluster that is up.

Without rows: all. `report` only writes docs/numbers-traffic.md from what was kept. `--quick` runs the same steps too
few times for a number, to see that they work; its results are kept apart.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping

from benchmarks.control.result import Result, load_all
from benchmarks.control.runner import Row, conclude, measure
from benchmarks.traffic import changes, charts, crowd, edge, latency, loopback, numbers, outages, pods, tail, users
from inflight_demo.console import Console

ROWS: Mapping[str, Row] = {
    "rolled": changes.rolled,
    "weights": changes.weights,
    "routers": changes.routers,
    "operators": changes.operators,
    "scaled": changes.scaled,
    "deleted": pods.deleted,
    "killed": pods.killed,
    "killed-idempotent": pods.killed_idempotent,
    "drained": pods.drained,
    "drained-grpc": pods.drained_grpc,
    "apiserver": outages.apiserver,
    "flooded": edge.flooded,
    "fuzzed": edge.fuzzed,
    "latency": latency.latency,
    "hedged": loopback.hedged,
    "slow-pod": tail.slow_pod,
    "fleet": loopback.fleet,
    "crowded": crowd.crowded,
    **{f"etcd-{seconds}": outages.etcd(seconds) for seconds in (30, 60, 120)},
    "sticky": users.sticky,
    "cut": pods.cut,
    "flooded-off": edge.flooded_off,
    "rolled-off": changes.rolled_off,
}


def main() -> int:
    """Exit status 0: every row was measured and kept its goal. 1: one missed. 2: one could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traffic", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", choices=[[], *ROWS, "report"], help=", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    arguments = parser.parse_args()
    rows = [row for row in dict.fromkeys(arguments.rows or ROWS) if row != "report"]
    console, results, broken = Console(total=len(rows)), list[Result](), list[str]()
    if rows:
        asyncio.run(measure(ROWS, rows, console, results, broken, quick=arguments.quick))
    if not arguments.quick:
        found = load_all(suite="traffic")
        numbers.write(found)
        charts.write(found)
    return conclude(results, broken, console)


if __name__ == "__main__":
    sys.exit(main())
