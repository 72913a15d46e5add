"""The cluster's network namespace: no default route, so that nothing inside reaches another machine by mistake."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

from inflight_cluster import layout, mounts
from inflight_cluster.errors import ClusterError

_CLONE_NEWNET = 0x40000000
_DEVICE = "node0"


def exists(file: Path) -> bool:
    """Whether a network namespace is mounted on `file`."""
    return bool(mounts.below(file))


def inside(file: Path) -> bool:
    """Whether this process is already in that namespace."""
    return file.exists() and file.stat().st_ino == Path("/proc/self/ns/net").stat().st_ino


def create(file: Path) -> None:
    """A new namespace kept alive by a mount on `file`."""
    if exists(file):
        return
    file.touch()
    _run("unshare", f"--net={file}", "true")


def enter(file: Path) -> None:
    """Move this (single-threaded) process into the namespace; what it starts is inside too.

    setns and not `ip netns exec`, which remounts /sys and so hides the cgroups from kubelet and containerd.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ClusterError("the cluster is not up: start it with 'dev/cluster up'") from None
    try:
        if libc.setns(descriptor, _CLONE_NEWNET):
            raise ClusterError(f"cannot enter the network namespace {file}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


def configure() -> None:
    """Run inside: the node's address on a bridge without ports, and a route for Services.

    kube-proxy translates a Service's address only on packets that have a route: without one the kernel says
    "network is unreachable" first.
    """
    _run("ip", "link", "set", "lo", "up")
    if not _has_device():
        _run("ip", "link", "add", _DEVICE, "type", "bridge")
    _run("ip", "address", "replace", layout.NODE_NETWORK, "dev", _DEVICE)
    _run("ip", "link", "set", _DEVICE, "up")
    _run("ip", "route", "replace", layout.SERVICE_CIDR, "dev", _DEVICE)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _has_device() -> bool:
    return subprocess.run(["ip", "link", "show", _DEVICE], capture_output=True, check=False).returncode == 0


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise ClusterError(f"'{' '.join(command)}' failed: {error.stderr.strip()}") from error
