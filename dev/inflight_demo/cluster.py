"""The cluster, the images and the chart, by the same commands that people use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from inflight_cluster import network
from inflight_cluster.settings import load

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = str(ROOT / "dev" / "cluster")
SYSTEM = "inflight-system"
NAMESPACE = "demo"
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class CommandError(Exception):
    """A command that the demo needs ended badly; its own words were printed already."""


def run(*command: str, stdin: str | None = None) -> None:
    """Run a command, its output going where ours goes. CommandError when it fails."""
    sys.stdout.flush()
    done = subprocess.run(command, input=stdin, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise CommandError(f"`{' '.join(command)}` ended with {done.returncode}")


def enter() -> None:
    """Move this process into the cluster's network, where pods and Services answer, with its kubeconfig at hand.

    With kind there is no such namespace to enter. ClusterError when the cluster is not up.
    """
    settings = load()
    os.environ["KUBECONFIG"] = str(settings.layout.kubeconfig)
    if settings.backend == "local":
        network.enter(settings.layout.netns)


def images() -> None:
    """Build what changed and load it into the node."""
    run("make", "images")


def namespaces() -> None:
    """Make the two namespaces, both refusing pods that are not restricted."""
    for name in (SYSTEM, NAMESPACE):
        run(CLUSTER, "kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(namespace(name)))


def namespace(name: str) -> dict[str, Any]:
    """A Namespace in which only restricted pods are admitted."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": _RESTRICTED}}


def install_chart() -> None:
    """`helm install`, or upgrade where it is installed; waits until every part is ready."""
    run(
        CLUSTER, "exec", "--", "helm", "upgrade", "--install", "inflight", str(ROOT / "charts" / "inflight"),
        "--namespace", SYSTEM, "--wait", "--timeout", "4m", "--hide-notes",
    )  # fmt: skip
