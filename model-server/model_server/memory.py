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
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return True
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return most - used >= _ROOM * own
