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
![p99 while it happens](../benchmarks/results/traffic-faults.svg)
![growth](../benchmarks/results/traffic-fleet.svg)
![hedging](../benchmarks/results/traffic-hedging.svg)
![limit](../benchmarks/results/traffic-limit.svg)

No operator for ten minutes, and a router replaced meanwhile: [numbers-install.md](numbers-install.md). The split over
10,000 requests: [numbers.md](numbers.md).

## Protections taken away, and what then fails

- `deleted`, `scaled`: without a drain it is `killed`, 12 of 47,755. `drained`: without it `cut`.
- `killed-idempotent`: without `idempotent` it is `killed`.
- `routers`: killed instead of drained, 18 of 10,001 fail ([numbers-install.md](numbers-install.md)).
- `etcd-30`: with operators that stood for leader only until their second lost Lease (a fault of ours until
  2026-11-27, with the Python of the image) the second change was never in force: given up after 240 s.
- `etcd-60`: with a controller manager that goes on, as ours does and one with leader election doesn't, 1,488 of
  66,666 failed: it took the node's late heartbeats for its death, and every pod was unready for seconds, the routers'
  Service included. 56 of them were ours: an operator that had just taken over knew of no pod that had been ready. It
  now believes the status. `etcd-30` and `etcd-120` were measured with a controller manager that goes on, and nothing
  failed.
- Retries: a dead pod's requests fail; without counting requests that wait for a connection a pod whose node is gone
  draws every one; where nothing is tried elsewhere refusals reach the client ([ADR
  20](adr/0020-what-one-pod-refuses-another-is-asked.md), tests/component/xds/test_retries.py).

## Why some are missed

- `latency`: everything runs on two cores, the pod's own p99 is 2 to 5 ms. Until 2026-11-27 the requests came 64 at
  once (p50 4 ms added), and the plain Envoy was asked over loopback. The listener's rules, headers and filters cost a
  request some 25 % more CPU than a bare Envoy; that they come over xDS, with load reports four times a second, 7 %.
- `fleet`: one route configuration has all ModelDeployments, so a changed weight is as much work for a router as there
  are of them, and both routers and the operator share two cores here. Weights alone by runtime discovery (RTDS) would
  not grow; not built.
- `hedged`: the time of a request is spread exponentially here, so who has waited has learned nothing: with a
  twentieth of the requests asked twice 0.8x of "without the slow pod" is the most that can be had (P(T > d) = 5 %,
  then two at once). One run of three was over the budget by 0.1 %.
"""


def write(results: Mapping[str, Result], file: Path = DOCUMENT) -> None:
    """Write docs/numbers-traffic.md."""
    file.write_text(_HEAD + table(ROWS, results) + _TAIL)
