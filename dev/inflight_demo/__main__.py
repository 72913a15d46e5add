"""`python -m inflight_demo up | down`: the whole demo. `inside` is its second half, in the cluster's network.

Running it again on a cluster that is up repeats every step and changes what is different.
"""

from __future__ import annotations

import argparse
import sys
import time

from inflight_probe.kube import ApiError

from inflight_demo import cluster
from inflight_demo.cluster import NAMESPACE, CommandError
from inflight_demo.console import Console, clock

_OUTSIDE = 3
_TOTAL = 8

_NEXT = f"""
The cluster stays up. Try:
    dev/cluster kubectl describe md digits -n {NAMESPACE}
    dev/cluster kubectl explain md.spec.variants
    dev/cluster kubectl get hpa -n {NAMESPACE} --watch
    dev/cluster kubectl edit md digits -n {NAMESPACE}     # move the weights, then: make demo
    make demo-down
"""


def main() -> int:
    """Exit status 0: everything went and every verdict held."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("what", choices=("up", "down", "inside"), nargs="?", default="up")
    parser.add_argument("--started", type=float, default=time.time(), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        return {"up": up, "down": down, "inside": inside}[arguments.what](arguments.started)
    except (CommandError, ApiError, TimeoutError, OSError, ValueError) as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1


def up(started: float) -> int:
    """All steps, in order."""
    console = Console(started=started, total=_TOTAL)
    with console.step("Cluster: a real node with its control plane"):
        cluster.run(cluster.CLUSTER, "up")
    with console.step("Images: operator, router, model server, S3 store"):
        cluster.images()
    with console.step("Chart: helm install into namespace inflight-system (restricted pods only)"):
        cluster.namespaces()
        cluster.install_chart()
    cluster.inside_python("inflight_demo", "inside", "--started", str(started))
    print(f"\nWhat is there now, {clock(time.time() - started)} after the start:\n", flush=True)
    cluster.run(cluster.CLUSTER, "kubectl", "get", "md,hpa,pods", "-n", NAMESPACE)
    print(_NEXT, flush=True)
    return 0


def inside(started: float) -> int:
    """Models, traffic and load, from within the cluster's network."""
    from inflight_demo import traffic  # noqa: PLC0415 - its imports are needed only inside

    return traffic.main(Console(started=started, total=_TOTAL, number=_OUTSIDE))


def down(_started: float) -> int:
    """Stop the cluster and everything in it; what was built and trained stays cached."""
    cluster.run(cluster.CLUSTER, "down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
