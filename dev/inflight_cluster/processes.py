"""Starts, recognises and ends the cluster's processes.

A process is ours when the kernel says that it was started with our mark in its environment. That cannot be
left behind by a killed run, and a reused pid does not have it; a pid file could lie in both ways.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "INFLIGHT_CLUSTER_COMPONENT"
_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process with our mark. `leader`: we started it; else it is a child, such as a container's shim."""

    pid: int
    component: str
    leader: bool
    arguments: tuple[str, ...]


def start(cluster: str, component: str, arguments: Sequence[str], log: Path) -> int:
    """Start a component in a session of its own, in our namespaces, with output appended to `log`; its pid."""
    log.parent.mkdir(parents=True, exist_ok=True)
    keep = ("PATH", "HOME", "LANG", "TMPDIR")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment |= {MARK: f"{cluster}/{component}"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    return process.pid


def marked(cluster: str, proc: Path = _PROC) -> list[Process]:
    """Every living process that carries the cluster's mark."""
    return [found for pid in pids(proc) if (found := _read(proc / str(pid), cluster))]


def running(cluster: str, proc: Path = _PROC) -> dict[str, Process]:
    """Component → its process."""
    return {process.component: process for process in marked(cluster, proc) if process.leader}


def pids(proc: Path = _PROC) -> Iterator[int]:
    """All process ids of the machine."""
    return (int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())


def in_network_namespace(file: Path, proc: Path = _PROC) -> list[int]:
    """The processes inside the network namespace that is mounted on `file`."""
    wanted = file.stat()
    return [pid for pid in pids(proc) if _same(proc / str(pid) / "ns" / "net", wanted)]


def kill(targets: Iterable[int], seconds: float = 10.0) -> list[int]:
    """SIGKILL and wait until each is gone (a zombie is: only its parent can bury it); the ones that are not."""
    remaining = [pid for pid in targets if _signal(pid, signal.SIGKILL)]
    deadline = time.monotonic() + seconds
    while remaining and time.monotonic() < deadline:
        remaining = [pid for pid in remaining if alive(pid)]
        if remaining:
            time.sleep(0.02)
    return remaining


def alive(pid: int, proc: Path = _PROC) -> bool:
    """Whether the process exists and is no zombie. A dead first thread says nothing while others still end."""
    try:
        status = (proc / str(pid) / "stat").read_text()
        threads = len(list((proc / str(pid) / "task").iterdir()))
    except OSError:
        return False
    return threads > 1 or status.rpartition(")")[2].split()[0] not in ("Z", "X")


def parse_environment(raw: bytes) -> Mapping[str, str]:
    """The environment as /proc/PID/environ holds it."""
    pairs = (item.partition("=") for item in raw.decode(errors="replace").split("\0") if item)
    return {name: value for name, _, value in pairs}


def _read(entry: Path, cluster: str) -> Process | None:
    try:
        mark = parse_environment((entry / "environ").read_bytes()).get(MARK, "")
        owner, _, component = mark.partition("/")
        if owner != cluster or not component:
            return None
        arguments = tuple((entry / "cmdline").read_text().rstrip("\0").split("\0"))
        session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
    except OSError:  # it ended while we looked
        return None
    pid = int(entry.name)
    return Process(pid=pid, component=component, leader=session == pid, arguments=arguments)


def _same(link: Path, wanted: os.stat_result) -> bool:
    try:
        found = link.stat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
