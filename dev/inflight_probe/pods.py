"""A pod's processes and its loopback, seen from the node: resident memory, and ports that only the pod itself reaches.

Needs root on the node. Only measuring does this; nothing in the product may.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from inflight_cluster import network

_PROC = Path("/proc")
_HERE = _PROC / "self" / "ns" / "net"


def processes(uid: str) -> list[int]:
    """Process ids of a pod's containers, its pause process left out. Empty when the pod does not run here."""
    return [pid for pid in _pids() if uid in _read(pid, "cgroup") and _read(pid, "comm").strip() != "pause"]


def resident_bytes(uid: str) -> int:
    """Resident memory of all of a pod's processes."""
    lines = [line for pid in processes(uid) for line in _read(pid, "status").splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def cpu_seconds(uid: str) -> float:
    """CPU time that all of a pod's processes have used so far."""
    fields = [_read(pid, "stat").rpartition(")")[2].split() for pid in processes(uid)]
    return sum(int(f[11]) + int(f[12]) for f in fields if f) / os.sysconf("SC_CLK_TCK")


def loopback(uid: str) -> aiohttp.TCPConnector:
    """A connector whose 127.0.0.1 is the pod's. LookupError when the pod does not run here."""
    pids = processes(uid)
    if not pids:
        raise LookupError(f"no process of pod {uid} on this machine")
    target = _PROC / str(pids[0]) / "ns" / "net"

    def make(address: Any) -> socket.socket:
        with _moved_to(target):
            return socket.socket(address[0], address[1], address[2])

    return aiohttp.TCPConnector(socket_factory=make, limit=4)


@contextmanager
def _moved_to(target: Path) -> Iterator[None]:
    """This thread in another network namespace; a socket stays in the one where it was made."""
    home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        network.enter(target)
        yield
    finally:
        network.enter(Path(f"/proc/self/fd/{home}"))
        os.close(home)


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _read(pid: int, file: str) -> str:
    try:
        return (_PROC / str(pid) / file).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
