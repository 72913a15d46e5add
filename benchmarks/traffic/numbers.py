"""docs/numbers-traffic.md, written from the kept results: every promised row, also the missed and the unmeasured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.control.numbers import table
from benchmarks.control.result import Result

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "numbers-traffic.md"

ROWS: Mapping[str, str] = {
    "rolled": "a variant rolled to a new model",
    "weights": "weight 0 → 10 → 50 → 100 → 0 %",
    "routers": "rollout of the routers",
    "operators": "rollout of the operators",
    "scaled": "1 → 8 → 1 replicas",
    "deleted": "20 pods deleted",
    "killed": "20 pods killed (SIGKILL)",
    "killed-idempotent": "20 pods killed, idempotent",
    "drained": "requests of 20 s across a drain",
    "apiserver": "API server down for 60 s",
    "etcd-30": "etcd stopped for 30 s, 5 times",
    "etcd-60": "etcd stopped for 60 s, 5 times",
    "etcd-120": "etcd stopped for 120 s, 5 times",
    "flooded": "one tenant at ten times what it can do",
    "fuzzed": "100,000 malformed requests",
}
"""Every row of the table, in its order."""

_HEAD = """# Numbers of the traffic

Measured by `make bench-traffic` on the cluster that `dev/cluster up` makes, everything (load generator included) on the
same machine. One row alone: `python -m benchmarks.traffic ROW`. This file is written from `benchmarks/results/` by
`python -m benchmarks.traffic report`; rows that missed their goal stay in it.

An open loop asks 200 times a second, without retries, a model that waits 20 ms; every request carries a number that the
answer has to send back, and says which variant gave it. Failed is anything else.

"""


def write(results: Mapping[str, Result], file: Path = DOCUMENT) -> None:
    """Write docs/numbers-traffic.md."""
    file.write_text(_HEAD + table(ROWS, results))
