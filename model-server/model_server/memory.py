"""How much memory this container has left: cgroup v2's own words."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_ROOM: Final = 1.5
"""A process like this one, and what requests need meanwhile."""


def left_for_another(cgroup: Path = _CGROUP) -> bool:
    """Whether a second process as large as this one has ever been fits below the limit; yes where there is none."""
    try:
        most = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text()) - _files(cgroup)
    except (OSError, ValueError):
        return True
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return most - used >= _ROOM * own


def _files(cgroup: Path) -> int:
    """Bytes of files that were read once, as the model was: they make way for anything (kubelet counts the same)."""
    stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    return int(stat.get("inactive_file", 0))
