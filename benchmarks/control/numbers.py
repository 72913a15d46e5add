"""docs/numbers.md, written from the kept results: every promised row, also the missed and the unmeasured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.control.result import Result

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "numbers.md"

ROWS: Mapping[str, str] = {
    "demo-cold": "`make demo` cold on 2 cores",
    "demo-warm": "`make demo` with tools built, cluster down",
    "demo-up": "`make demo` with the cluster up",
    "applied": "CR applied → Deployment, Service, HPA exist (p99 of 200)",
    "weights": "weight patched → in force in both routers (p99 of 200)",
    "endpoints": "endpoint ready → in both routers (p99)",
    "split": "split over 10,000 requests at 95/5 and 50/50",
    "turned-over": "95/5 → 5/95 → 95/5 under 200 requests/s",
    "turned-over-full": "95/5 → 5/95 → 95/5 under 200 requests/s, target per pod by default",
    "replaced": "a variant's model replaced under 200 requests/s",
    "quiet": "second reconcile of an unchanged CR, and 10 idle minutes",
    "memory": "operator RSS idle; with 200 ModelDeployments",
    "step": "load step 1 → 8 → 1 in flight",
    "refusal": "a CPU-bound 500 ms model with 1 and 5 clients, 2 s timeout",
}
"""Every row of the table, in its order."""

_HEAD = """# Numbers

Measured by `make bench-control` on the cluster that `dev/cluster up` makes, everything (load generator included) on
the same machine. One row alone: `python -m benchmarks.control ROW`. This file is written from `benchmarks/results/`
by `python -m benchmarks.control report`; rows that missed their goal stay in it.

"""

_TAIL = """
How: times start when the request that makes the change is sent, and end with the API server's watch event or with
what Envoy's own admin interface says is in force, read every 5 ms in both routers. Load comes from open loops without
retries, timed from when each request was due. Failed means anything but a 200 with the right body.

![Every request of the overload row: answered, refused or lost, over time](images/calculate.svg)
"""


def document(results: Mapping[str, Result]) -> str:
    """The whole file."""
    return f"{_HEAD}{table(ROWS, results)}{_TAIL}"


def table(rows: Mapping[str, str], results: Mapping[str, Result]) -> str:
    """A line for each of `rows` (row → what it is), and where they were measured."""
    lines = ["| what | goal | measured | verdict | measure again |", "|---|---|---|---|---|"]
    lines += [_line(what, results.get(row)) for row, what in rows.items()]
    machines = sorted({f"{r.machine}, {r.when}" for r in results.values()})
    where = "\n".join(f"- {machine}" for machine in machines)
    return f"{chr(10).join(lines)}\n\nMeasured on:\n{where}\n"


def _line(what: str, result: Result | None) -> str:
    if result is None:
        return f"| {what} | | not measured yet | | |"
    verdict = "kept" if result.kept else "**missed**"
    return f"| {result.what} | {result.goal} | {result.measured} | {verdict} | `{result.command}` |"


def write(results: Mapping[str, Result], file: Path = DOCUMENT) -> None:
    """Write docs/numbers.md."""
    file.write_text(document(results))
