"""How much memory this container has and what is left of it, in cgroup v2's own words."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_PROCESSES: Final = Path("/proc")
_ROOM: Final = 1.5
"""A process like this one, and what requests need meanwhile."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes."""

    limit: int
    room: int
    """What the container may still take. Files that were read or are mapped, as the model is, make way for it."""


def now(cgroup: Path = _CGROUP) -> Memory | None:
    """None where nothing limits this container, or nobody says."""
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        makes_way = int(stat["file"]) - int(stat["shmem"]) + int(stat["slab_reclaimable"])
    except (OSError, ValueError, KeyError):
        return None
    return Memory(limit, max(0, limit - used + makes_way))


def left_for_another() -> bool:
    """Whether a second process as large as this one has ever been fits below the limit; yes where there is none."""
    memory = now()
    return memory is None or memory.room >= _ROOM * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def anonymous(pid: int, processes: Path = _PROCESSES) -> int:
    """Resident bytes of a process that are no file's; 0 when it has ended."""
    with contextlib.suppress(OSError, ValueError):
        for line in (processes / str(pid) / "status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    return 0
