"""Tells what runs and whether it is healthy (`status`), and whether this machine can run it (`doctor`)."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from inflight_cluster import components, debian, health, mounts, network, processes, tools
from inflight_cluster.cgroups import hierarchies
from inflight_cluster.components import Options
from inflight_cluster.settings import Settings


@dataclass(frozen=True)
class Line:
    """One fact: its name, whether it is as it should be, and the details."""

    name: str
    good: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.good else 'BAD '} {self.name:<24} {self.text}"


def status(settings: Settings) -> list[Line]:
    """One line for each component. Enters the cluster's namespace, so nothing else should follow."""
    where = settings.layout
    if not network.exists(where.netns):
        return [Line("cluster", False, f"{settings.name!r} is not up: start it with 'dev/cluster up'")]
    network.enter(where.netns)
    running = processes.running(where.name)
    everything = (*components.GO_TOOLS, *components.DEBIAN_PROGRAMS)
    plan = components.plan(where, {name: Path(name) for name in everything}, Options())
    lines = []
    for component in plan:
        process = running.get(component.name)
        why = health.problem(component.health) if process else "not running"
        text = f"pid {process.pid}" if process else ""
        lines.append(Line(component.name, not why, f"{text} {why}".strip()))
    return [*lines, Line("kubeconfig", where.kubeconfig.exists(), str(where.kubeconfig))]


def doctor(settings: Settings) -> list[Line]:
    """What `up` needs of this machine; nothing is changed."""
    points = mounts.parse(Path("/proc/self/mountinfo").read_text())
    packages = debian.missing()
    built = tools.not_built(components.GO_TOOLS, settings.cache)
    apt = tools.system_program("apt-get") is not None
    free = _free_gibibytes(settings.cache)
    version = ".".join(map(str, sys.version_info[:3]))
    return [
        Line("python >= 3.11", sys.version_info >= (3, 11), version),
        Line("root", os.geteuid() == 0, "yes" if os.geteuid() == 0 else "no: run as root, for example with sudo"),
        Line("cgroups", bool(hierarchies(points)), f"{len(hierarchies(points))} hierarchies"),
        Line("Debian packages", apt or not packages, f"'up' will install {' '.join(packages)}" if packages else "all"),
        Line("Go tools", True, f"'up' will build {' '.join(built)}" if built else "all built"),
        Line("disk for builds", free >= 8 or not built, f"{free:.0f} GiB free at {settings.cache}, a build needs 8"),
    ]


def _free_gibibytes(directory: Path) -> float:
    while not directory.exists():
        directory = directory.parent
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize / 2**30
