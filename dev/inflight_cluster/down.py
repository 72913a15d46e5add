"""Takes everything of one cluster off the machine, whatever state a killed run has left it in.

Nothing here asks the cluster: what is ours is recognised by our mark in a process's environment, by our cgroup,
by our network namespace and by our state directory.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from inflight_cluster import cgroups, health, mounts, network, processes, sysctls
from inflight_cluster.console import Console
from inflight_cluster.errors import ClusterError
from inflight_cluster.layout import Layout
from inflight_cluster.settings import Settings
from inflight_cluster.up import one_at_a_time, refuse_inside

_FIRST = ("kubelet", "containerd")  # they would bring back what is ended after them
_CNI_RESULTS = Path("/var/lib/cni/results")
_CONTAINER_LOGS = Path("/var/log/containers")
_DEVICE_SOCKET = Path("/var/lib/kubelet/device-plugins/kubelet.sock")
_PLUGINS = Path("/usr/libexec/kubernetes/kubelet-plugins/volume/exec")
_SHIM_SOCKETS = Path("/run/containerd/s")
# Directories that kubelet, containerd and the CNI library make outside of the state directory whatever we
# configure, with how many of their parents they make too: gone with us when empty.
_OUTSIDE = ((_CNI_RESULTS, 1), (_CONTAINER_LOGS, 0), (_SHIM_SOCKETS, 1), (_DEVICE_SOCKET.parent, 1), (_PLUGINS, 3))


def down(settings: Settings, console: Console) -> None:
    """Leaves no process, mount, cgroup, network namespace or file of this cluster. Repeatable."""
    where = settings.layout
    refuse_inside(where)
    with one_at_a_time(settings):
        with console.step("processes"):
            _end_processes(where)
        with console.step("mounts and network namespace"):
            _require_none("still mounted", mounts.unmount_below(where.state))
        with console.step("cgroups"):
            _require_none("cgroups still in use", cgroups.remove(where.name))
        with console.step("files"):
            _remove_files(where)
            if not any(path.is_dir() for path in settings.state.parent.iterdir()):
                sysctls.restore(settings.state.parent / "sysctls.json")
    settings.state.with_suffix(".lock").unlink(missing_ok=True)


def leftovers(where: Layout) -> list[str]:
    """What of this cluster is on the machine now, for people and tests; empty after `down`."""
    found = [f"process {p.pid} {p.component}" for p in processes.marked(where.name)]
    found += [f"process {pid} in the cgroup" for pid in sorted(cgroups.processes(where.name))]
    found += [f"mount {point}" for point in mounts.below(where.state)]
    found += [f"cgroup {path}" for path in cgroups.directories(where.name)]
    return found + ([f"directory {where.state}"] if where.state.exists() else [])


def _end_processes(where: Layout) -> None:
    first = [process.pid for process in processes.marked(where.name) if process.component in _FIRST and process.leader]
    remaining = processes.kill(first)
    for _ in range(5):  # a shim or a plugin that was just starting shows up one look later
        targets = _ours(where)
        if not targets:
            return
        remaining = processes.kill(targets)
    _require_none("processes that do not end", [Path(f"/proc/{pid}") for pid in remaining])


def _ours(where: Layout) -> set[int]:
    found = {process.pid for process in processes.marked(where.name)} | cgroups.processes(where.name)
    if network.exists(where.netns):
        found |= set(processes.in_network_namespace(where.netns))
    return {pid for pid in found if pid != os.getpid() and processes.alive(pid)}


def _remove_files(where: Layout) -> None:
    _require_none("not removing files below a mount", mounts.below(where.state))
    _remove_outside(where)
    shutil.rmtree(where.state, ignore_errors=True)
    if where.state.exists():
        shutil.rmtree(where.state)
    for directory, parents in _OUTSIDE:
        for path in (directory, *directory.parents[:parents]):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _remove_outside(where: Layout) -> None:
    for address in where.containerd_state.glob("io.containerd.runtime.v2.task/*/*/address"):
        Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)  # a killed shim's socket
    for link in _CONTAINER_LOGS.glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(where.state):
            link.unlink()
    sandboxes = {path.name for path in where.containerd_state.glob("io.containerd.runtime.v2.task/*/*")}
    for result in _CNI_RESULTS.glob("*-*-*"):  # NETWORK-SANDBOX-INTERFACE, of every user of CNI
        if result.name.startswith(f"{where.name}-") or result.name.split("-")[-2] in sandboxes:
            result.unlink()
    if not _answers(_DEVICE_SOCKET):
        _DEVICE_SOCKET.unlink(missing_ok=True)


def _answers(unix_socket: Path) -> bool:
    return not health.problem(f"unix:{unix_socket}")


def _require_none(what: str, paths: list[Path]) -> None:
    if paths:
        listed = " ".join(str(path) for path in paths[:5])
        raise ClusterError(f"{what}: {listed}; end what uses it and run 'dev/cluster down' again")
