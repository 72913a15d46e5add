"""docs/numbers-traffic.md, written from the kept results: every promised row, also the missed and the unmeasured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.control.numbers import table
from benchmarks.control.result import Result

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "numbers-traffic.md"

ROWS: Mapping[str, str] = {
    "rolled": "a variant rolled to a new model",
    "rolled-off": "the same, and the old pods go first",
    "weights": "weight 0 → 10 → 50 → 100 → 0 %",
    "routers": "rollout of the routers",
    "operators": "rollout of the operators",
    "scaled": "1 → 8 → 1 replicas",
    "deleted": "20 pods deleted",
    "killed": "20 pods killed (SIGKILL)",
    "killed-idempotent": "20 pods killed, idempotent",
    "drained": "requests of 20 s across a drain",
    "drained-grpc": "gRPC calls of 20 s across a drain",
    "cut": "the same, and the pods are killed",
    "apiserver": "API server down for 60 s",
    "etcd-30": "etcd stopped for 30 s, 5 times",
    "etcd-60": "etcd stopped for 60 s, 5 times",
    "etcd-120": "etcd stopped for 120 s, 5 times",
    "flooded": "one tenant at ten times what it can do",
    "flooded-off": "the same, both on one ModelDeployment",
    "fuzzed": "100,000 malformed requests",
    "sticky": "10,000 sticky users at 95/5 and then at 90/10",
    "latency": "the router's added latency and its limit",
    "hedged": "one of 5 pods 10x slow, hedged",
    "slow-pod": "one slow pod of 5 on the cluster",
    "fleet": "1,000 ModelDeployments, one changed",
    "crowded": "the same on the cluster",
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

- `rolled`: `rolled-off`. `flooded`: `flooded-off`. Both must fail, and are in the table.
- `deleted`, `scaled`: without a drain it is `killed`. `drained`, `drained-grpc`: without it `cut`.
- `weights`, and every other change of routes: told before the clusters that they lead to, requests fail
  (tests/component/xds/test_changes.py, `a_revision_is_replaced`, with the order in session.py turned round). Weights
  that outlive or outrun their routes: tests/unit/xds/test_weights.py fails with either protection off.
- `operators`, `apiserver`: an operator that answers routers before it has read everything takes their routes away
  (`a_new_operator_with_the_same_world_changes_nothing`, with the wait in ads.py taken out).
- `killed-idempotent`: without `idempotent` it is `killed`.
- `routers`: killed instead of drained, 18 of 10,001 fail ([numbers-install.md](numbers-install.md)).
- `etcd-30`: with operators that stood for leader only until their second lost Lease (a fault of ours until
  2026-11-27, with the Python of the image) the second change was never in force: given up after 240 s.
- `etcd-60`: with a controller manager that goes on, as ours does and one with leader election doesn't, 1,488 of
  66,666 failed: it took the node's late heartbeats for its death, and every pod was unready for seconds, the routers'
  Service included. 56 of them were ours: an operator that had just taken over knew of no pod that had been ready. It
  now believes the status.
- Retries: a dead pod's requests fail; without counting requests that wait for a connection a pod whose node is gone
  draws every one; where nothing is tried elsewhere refusals reach the client ([ADR
  20](adr/0020-what-one-pod-refuses-another-is-asked.md), tests/component/xds/test_retries.py).

## What to know of some

- `latency`: everything runs on two cores. Until 2026-11-27 the requests came 64 at once (p50 4 ms added), and on
  another machine of this size the row was missed: p50 0.42 ms, p99 3.4 ms, of a pod whose own p99 was 2 to 5 ms. So
  what a bare Envoy adds is measured beside it. The listener's rules, headers and filters cost a request more CPU than a
  bare Envoy; that they come over xDS, with load reports four times a second, 7 %.
- `fleet`: until weights went to routers beside their routes ([ADR
  23](adr/0023-weights-go-to-routers-beside-their-routes.md)) the p99 was 212 ms, and grew with the number of
  ModelDeployments. It is timed from the control plane's wish to both routers' acknowledgement; `crowded` is on the
  cluster, from a PATCH's reply until both Envoys' `/runtime` has it, but its other ModelDeployments have no pods, so no
  weights either.
- `hedged`: the time of a request is spread exponentially here, so who has waited has learned nothing: with a
  twentieth of the requests asked twice 0.8x of "had it never been there" is the most that can be had (P(T > d) = 5 %,
  then two at once), with four fifths of that 0.86x. "Ejected" finds the slow pod by itself, and looks at it again after
  20, 40, 80 ... seconds. While a pod is looked at the others may be too full for a hedge: so one run's p99 was 263 ms.
- `etcd-60`, `scaled`, `deleted`, `killed*`, `drained`, `cut`, `flooded`, `fuzzed`, `sticky` and `slow-pod` were
  measured before weights had a layer of their own, the others after. Tests ran beside `operators` and `routers`: their
  p99.
"""


def write(results: Mapping[str, Result], file: Path = DOCUMENT) -> None:
    """Write docs/numbers-traffic.md."""
    file.write_text(_HEAD + table(ROWS, results) + _TAIL)
