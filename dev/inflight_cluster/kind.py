"""The same verbs on kind, for machines with Docker. Everything that makes the cluster is kind's own business."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from inflight_cluster.console import Console
from inflight_cluster.errors import ClusterError
from inflight_cluster.settings import REPOSITORY, Settings
from inflight_cluster.status import Line
from inflight_cluster.tools import system_program

CONFIG = REPOSITORY / "kind-config.yaml"


def up(settings: Settings, console: Console) -> None:
    """Create the cluster unless there is one, and write its kubeconfig."""
    _require()
    name, kubeconfig = settings.layout.name, settings.layout.kubeconfig
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    if exists(settings):
        _kind("export", "kubeconfig", "--name", name, "--kubeconfig", str(kubeconfig))
        return
    with console.step(f"kind cluster {name}"):
        options = ("--name", name, "--config", str(CONFIG), "--kubeconfig", str(kubeconfig), "--wait", "180s")
        _kind("create", "cluster", *options)


def down(settings: Settings) -> None:
    _require()
    _kind("delete", "cluster", "--name", settings.layout.name, "--kubeconfig", str(settings.layout.kubeconfig))
    settings.layout.kubeconfig.unlink(missing_ok=True)


def exists(settings: Settings) -> bool:
    """Whether kind knows a cluster of our name."""
    return system_program("kind") is not None and settings.layout.name in _kind("get", "clusters").split()


def status(settings: Settings) -> list[Line]:
    """One line for the cluster and one for each node that kind runs for it."""
    _require()
    if not exists(settings):
        return [Line("cluster", False, f"{settings.name!r} is not up: start it with 'dev/cluster up'")]
    nodes = _kind("get", "nodes", "--name", settings.layout.name).split()
    return [*(Line(node, True, "runs") for node in nodes), Line("kubeconfig", True, str(settings.layout.kubeconfig))]


def load(settings: Settings, archives: list[Path], console: Console) -> None:
    """Import image archives into the node."""
    _require()
    for archive in archives:
        with console.step(f"load {archive.name}"):
            _kind("load", "image-archive", str(archive), "--name", settings.layout.name)


def logs(settings: Settings, name: str) -> str:
    """The logs of a component: a static pod of the control plane, or a system service of the node."""
    node = f"{settings.layout.name}-control-plane"
    if name in ("kubelet", "containerd"):
        return _run("docker", "exec", node, "journalctl", "--no-pager", "--unit", name)
    return _run("docker", "exec", node, "sh", "-c", f"cat /var/log/pods/kube-system_{name}-*/*/*.log")


def _require() -> None:
    docker = system_program("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        raise ClusterError("CLUSTER=kind needs a running Docker daemon; without one leave CLUSTER unset")
    if system_program("kind") is None:
        raise ClusterError("CLUSTER=kind needs kind on PATH: 'go install sigs.k8s.io/kind@latest'")


def _kind(*arguments: str) -> str:
    return _run("kind", *arguments)


def _run(*command: str) -> str:
    ran = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise ClusterError(f"'{' '.join(command)}' failed: {ran.stderr.strip()[-2000:]}")
    return ran.stdout
