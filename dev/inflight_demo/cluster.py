"""The cluster, the images and the chart, by the same commands that people use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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


def inside(*command: str) -> None:
    """Run a command inside the cluster's own network namespace."""
    run(CLUSTER, "exec", "--", *command)


def inside_python(module: str, *arguments: str) -> None:
    """Run one of our modules inside the cluster's network namespace, with this interpreter."""
    path = os.pathsep.join([str(ROOT / "dev"), str(ROOT)])
    inside("env", f"PYTHONPATH={path}", sys.executable, "-m", module, *arguments)


def images() -> None:
    """Build what changed and load it into the node."""
    run("make", "images")


def namespaces() -> None:
    """Make the two namespaces, both refusing pods that are not restricted."""
    for name in (SYSTEM, NAMESPACE):
        manifest = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": _RESTRICTED},
        }
        run(CLUSTER, "kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(manifest))


def install_chart() -> None:
    """`helm install`, or upgrade where it is installed; waits until every part is ready."""
    inside(
        "helm", "upgrade", "--install", "inflight", str(ROOT / "charts" / "inflight"),
        "--namespace", SYSTEM, "--wait", "--timeout", "4m", "--hide-notes",
    )  # fmt: skip
