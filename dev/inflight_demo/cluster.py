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
PARTS = ("operator", "router")
_ARCHIVE = "dev.inflight/archive"
_RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class CommandError(Exception):
    """A command that the demo needs ended badly; its own words were printed already."""


def run(*command: str, stdin: str | None = None) -> None:
    """Run a command, its output going where ours goes. CommandError when it fails."""
    sys.stdout.flush()
    done = subprocess.run(command, input=stdin, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise CommandError(f"`{' '.join(command)}` ended with {done.returncode}")


def quietly(*command: str, stdin: str | None = None) -> str:
    """Run a command whose output nobody needs, unless it fails: CommandError with its last words. Its output."""
    done = subprocess.run(command, input=stdin, text=True, check=False, cwd=ROOT, capture_output=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise CommandError(f"`{' '.join(command)}` ended with {done.returncode}: {said}")
    return done.stdout


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
    run(CLUSTER, "images")


def namespaces() -> None:
    """Make the two namespaces, both refusing pods that are not restricted."""
    for name in (SYSTEM, NAMESPACE):
        quietly(CLUSTER, "kubectl", "apply", "--server-side", "-f", "-", stdin=json.dumps(namespace(name)))


def namespace(name: str) -> dict[str, Any]:
    """A Namespace in which only restricted pods are admitted."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": _RESTRICTED}}


def install_chart() -> list[str]:
    """`helm install`, or upgrade where it is installed; waits until every part is ready. What was done, in words.

    The images' tag stays the same while they are developed, so what runs an older image is restarted.
    """
    before = _installed_images()
    quietly(
        CLUSTER, "exec", "--", "helm", "upgrade", "--install", "inflight", str(ROOT / "charts" / "inflight"),
        "--namespace", SYSTEM, "--wait", "--timeout", "4m", "--set", "router.hostDomains={ml.example}",
    )  # fmt: skip
    done = ["upgraded" if before else "installed"]
    for part in PARTS:
        archive = _archive(part)
        target = f"deployment/inflight-{part}"
        if part in before and before[part] != archive:
            quietly(CLUSTER, "kubectl", "rollout", "restart", target, "-n", SYSTEM)
            quietly(CLUSTER, "kubectl", "rollout", "status", target, "-n", SYSTEM, "--timeout=180s")
            done.append(f"{part} restarted with its new image")
        if before.get(part) != archive:
            quietly(CLUSTER, "kubectl", "annotate", target, "-n", SYSTEM, "--overwrite", f"{_ARCHIVE}={archive}")
    return done


def _installed_images() -> dict[str, str]:
    """Which archive each installed part was started from, by part."""
    listed = json.loads(quietly(CLUSTER, "kubectl", "get", "deployments", "-n", SYSTEM, "-o", "json"))["items"]
    return {
        d["metadata"]["name"].removeprefix("inflight-"): d["metadata"].get("annotations", {}).get(_ARCHIVE, "")
        for d in listed
    }


def _archive(part: str) -> str:
    """Name of the archive that the part's image was loaded from; it is named by its content."""
    found = sorted((load().cache / "images").glob(f"{part}-*.tar"))
    return found[-1].stem if found else "elsewhere"
