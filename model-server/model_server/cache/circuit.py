"""Whether the shared level is asked at all: not for a while after it failed several times, then once to try."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FAILURES: Final = 3
"""In a row, that open the circuit."""
_FIRST_SECONDS: Final = 1.0
_MOST_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Circuit:
    """Times are seconds on any clock that never goes back."""

    failures: int = 0
    """In a row; while nobody asks, what fails still is the echo of what was asked before, and isn't counted."""
    open_until: float = 0.0
    trying: bool = False
    """One request asks although the circuit is open."""

    @property
    def broken(self) -> bool:
        """Asking again is a trial."""
        return self.failures >= FAILURES

    def allows(self, now: float) -> bool:
        """Whether to ask now."""
        return now >= self.open_until

    def asking(self, now: float) -> Circuit:
        """While a trial is under way nobody else asks."""
        return Circuit(self.failures, now + _FIRST_SECONDS, trying=True) if self.broken else self

    def failed(self, now: float) -> Circuit:
        """Each trial that fails doubles the pause, up to half a minute."""
        if self.broken and not self.trying:
            return self
        failures = self.failures + 1
        if failures < FAILURES:
            return Circuit(failures)
        seconds = min(_MOST_SECONDS, _FIRST_SECONDS * 2.0 ** min(failures - FAILURES, 10))
        return Circuit(failures, now + seconds)
