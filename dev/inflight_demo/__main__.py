"""`python -m inflight_demo up | down`: the whole demo, step by step.

Running it again on a cluster that is up repeats every step and changes what is different.
"""

from __future__ import annotations

import argparse
import sys
import time

from inflight_cluster.errors import ClusterError
from inflight_demo import cluster, traffic
from inflight_demo.cluster import NAMESPACE, CommandError
from inflight_demo.console import Console, clock
from inflight_probe.kube import ApiError

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
    parser.add_argument("what", choices=("up", "down"), nargs="?", default="up")
    arguments = parser.parse_args()
    try:
        return {"up": up, "down": down}[arguments.what]()
    except (CommandError, ClusterError, ApiError, TimeoutError, OSError, ValueError) as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1


def up() -> int:
    """All steps, in order; 1 when an answer, the split or the scaling was not as promised."""
    console = Console(total=_TOTAL)
    with console.step("Cluster: a real node with its control plane"):
        cluster.run(cluster.CLUSTER, "up")
    with console.step("Images: operator, router, model server, S3 store"):
        cluster.images()
    with console.step(f"Chart: helm install into {cluster.SYSTEM}; only restricted pods are allowed there"):
        cluster.namespaces()
        console.say(", ".join(cluster.install_chart()))
    cluster.enter()
    kept = traffic.main(console)
    console.say()
    print(f"What is there now, {clock(time.time() - console.started)} after the start:\n", flush=True)
    cluster.run(cluster.CLUSTER, "kubectl", "get", "md,hpa,pods", "-n", NAMESPACE)
    print(_NEXT if kept else "\nNot everything was as promised: see NOT above.\n", flush=True)
    return 0 if kept else 1


def down() -> int:
    """Stop the cluster and everything in it; what was built and trained stays cached."""
    cluster.run(cluster.CLUSTER, "down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
