"""The cluster's cgroup: one directory of the same name in every hierarchy of the machine (v1 or v2)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from inflight_cluster import mounts

_ROOT = Path("/sys/fs/cgroup")


def hierarchies(mount_points: list[Path]) -> list[Path]:
    """Where the cgroup hierarchies are mounted: /sys/fs/cgroup itself (v2), or one directory for each (v1)."""
    inside = [point for point in mount_points if point.parent == _ROOT]
    return inside or [point for point in mount_points if point == _ROOT]


def create(name: str) -> None:
    """kubelet wants its root cgroup to exist, with every controller."""
    for hierarchy in _all():
        _prepare(hierarchy, hierarchy / name)


def _prepare(hierarchy: Path, directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    for file in ("cpuset.cpus", "cpuset.mems"):  # v1: a cpuset starts without any
        if (hierarchy / file).exists():
            (directory / file).write_text((hierarchy / file).read_text())
    available = hierarchy / "cgroup.controllers"
    if available.exists():  # v2: what a cgroup may use, its parent has to hand down
        wanted = " ".join(f"+{controller}" for controller in available.read_text().split())
        for cgroup in (hierarchy, directory):
            with suppress(OSError):  # kubelet says which one it misses
                (cgroup / "cgroup.subtree_control").write_text(wanted)


def processes(name: str) -> set[int]:
    """Every process inside, in any hierarchy."""
    found: set[int] = set()
    for directory in directories(name):
        with suppress(OSError):
            found.update(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
    return found


def remove(name: str, seconds: float = 5.0) -> list[Path]:
    """Remove the cgroups from the inside out once their processes are gone; the ones that resist."""
    deadline = time.monotonic() + seconds
    while True:
        for directory in directories(name):
            with suppress(OSError):
                directory.rmdir()
        remaining = list(directories(name))
        if not remaining or time.monotonic() > deadline:
            return remaining
        time.sleep(0.05)


def _all() -> list[Path]:
    return hierarchies(mounts.parse(Path("/proc/self/mountinfo").read_text()))


def directories(name: str) -> Iterator[Path]:
    for hierarchy in _all():
        top = hierarchy / name
        if top.is_dir():
            yield from sorted((p for p in top.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts))
            yield top
