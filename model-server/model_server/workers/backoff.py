"""How long to wait before what was lost is replaced. Pure."""

from __future__ import annotations

from typing import Final

LONGEST_SECONDS: Final = 30.0
_FIRST_SECONDS: Final = 0.1
_FREE_IDLE: Final = 2
_FREE_BUSY: Final = 16
"""More, since the requests may be to blame: one poisoned row of a batch costs several workers until it is found."""
_SETTLED_SECONDS: Final = 10.0


class Backoff:
    """Nothing at first; when nothing works in between, pauses that double."""

    def __init__(self) -> None:
        self._idle = 0
        self._busy = 0

    def lost(self, lived: float, *, busy: bool) -> float:
        """Seconds to wait now that one was lost which had lived `lived` seconds; `busy`: with a request."""
        if lived >= _SETTLED_SECONDS:
            self.worked()
        if busy:
            self._busy += 1
        else:
            self._idle += 1
        excess = max(self._busy - _FREE_BUSY, self._idle - _FREE_IDLE)
        return min(LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(excess - 1, 16)) if excess > 0 else 0.0

    def worked(self) -> None:
        """Something has answered: all is well again."""
        self._idle = self._busy = 0
