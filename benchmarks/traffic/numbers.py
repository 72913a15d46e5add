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
    "cut": "the same, and the pods are killed",
    "apiserver": "API server down for 60 s",
    "etcd-30": "etcd stopped for 30 s, 5 times",
    "etcd-60": "etcd stopped for 60 s, 5 times",
    "etcd-120": "etcd stopped for 120 s, 5 times",
    "flooded": "one tenant at ten times what it can do",
    "fuzzed": "100,000 malformed requests",
    "sticky": "10,000 sticky users at 95/5 and then at 90/10",
    "latency": "the router's added latency and its limit",
    "hedged": "one of 5 pods 10x slow, hedged",
    "slow-pod": "one slow pod of 5 on the cluster",
    "fleet": "1,000 ModelDeployments, one changed",
}
"""Every row of the table, in its order."""

_HEAD = """# Numbers of the traffic

Measured by `make bench-traffic` on the cluster that `dev/cluster up` makes, everything (load generator included) on the
same machine. One row alone: `python -m benchmarks.traffic ROW`. This file is written from `benchmarks/results/` by
`python -m benchmarks.traffic report`; rows that missed their goal stay in it.

An open loop asks 200 times a second, without retries, a model that waits 20 ms; every request carries a number that the
answer has to send back, and says which variant gave it. Failed is anything else.

"""


_TAIL = """
No operator for ten minutes, and a router replaced meanwhile: [numbers-install.md](numbers-install.md). The split over
10,000 requests: [numbers.md](numbers.md).

Protections taken away, and what then fails: without `idempotent` a killed pod's requests are lost (row `killed`);
routers that are killed instead of drained lose 18 of 10,001 ([numbers-install.md](numbers-install.md)). Without the
retry policy a dead pod's requests fail; without counting requests that wait for a connection a pod whose node is gone
draws every one; where nothing is tried elsewhere refusals reach the client ([ADR
20](adr/0020-what-one-pod-refuses-another-is-asked.md), tests/component/xds/test_retries.py).

Hedging, for 20 s twice (`python -m benchmarks.bench_hedging`, [hedging.json](../benchmarks/results/hedging.json)),
**missed**: p99 0.74x of without (goal 0.5x) and 2.3x of without the slow pod (0.7x). At half the load of five pods the
four healthy ones are 62 % used, and it starts below 60 % only: it was off nearly all the time.

Not measured yet: hedging on the cluster, and users moved by 95/5 → 90/10 beyond the e2e test's 500.
"""


def write(results: Mapping[str, Result], file: Path = DOCUMENT) -> None:
    """Write docs/numbers-traffic.md."""
    file.write_text(_HEAD + table(ROWS, results) + _TAIL)
