"""How much memory this container has left: cgroup v2's own words. And what a process does about it."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_STATUS: Final = Path("/proc/self/status")
_ROOM: Final = 1.5
"""A process like this one, and what requests need meanwhile."""


def headroom(cgroup: Path = _CGROUP) -> int | None:
    """Bytes that this container may still take, not below 0; None where nothing limits it.

    Files that were read or are mapped, as the model is, don't count: they make way for anything else.
    """
    try:
        most = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return max(0, most - used + int(stat["file"]) - int(stat["shmem"]))
    except (OSError, ValueError, KeyError):
        return None


def left_for_another(cgroup: Path = _CGROUP) -> bool:
    """Whether a second process as large as this one has ever been fits below the limit; yes where there is none."""
    room = headroom(cgroup)
    return room is None or room >= _ROOM * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def take_no_more_than(room: int) -> None:
    """From now on this process gets a MemoryError, or its native code an error, for more than `room` bytes of its own.

    A container that runs out of memory is ended as a whole: since Kubernetes 1.28 the kernel is told to (cgroup v2,
    memory.oom.group). So a process must notice before.
    """
    own = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmData:"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = 1024 * int(own.split()[1]) + room
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
