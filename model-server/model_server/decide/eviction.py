"""Which worker should end, now that the container is nearly out of memory?

Since Kubernetes 1.28 the kernel ends all of a container that runs out of memory (cgroup v2, memory.oom.group), the
front and every request with it. Ending the one worker that took the memory, a moment before, costs one request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

_SHARE: Final = 0.05
_LEAST: Final = 32 * 2**20
"""Of room: what a busy model takes between two looks, and the front for its answers."""

W = TypeVar("W")


def margin(limit: int) -> int:
    """Bytes of room below which a container of `limit` bytes is nearly out of memory."""
    return max(_LEAST, int(_SHARE * limit))


def choose(room: int, limit: int, grown: Mapping[W, int]) -> W | None:
    """`grown`: bytes that each worker has taken since it was ready. None: nobody is to blame, or all is well.

    A container that is simply too small is nobody's fault: only who has taken as much as is missing is ended for it.
    """
    least = margin(limit)
    if room >= least or not grown:
        return None
    largest = max(grown, key=lambda worker: grown[worker])
    return largest if grown[largest] >= least else None
