"""When refused clients were told to come back: how many of them are still to come."""

from __future__ import annotations

import heapq
from typing import Final

_MOST: Final = 10_000
"""Remembered: more would be told the longest time anyway."""


class Promises:
    """Times told, on the caller's clock; those that have passed are forgotten, kept or not."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def pending(self, now: float) -> int:
        """How many are still to come."""
        while self._times and self._times[0] <= now:
            heapq.heappop(self._times)
        return len(self._times)

    def add(self, at: float) -> None:
        """Somebody was told to come back at `at`."""
        if len(self._times) < _MOST:
            heapq.heappush(self._times, at)
