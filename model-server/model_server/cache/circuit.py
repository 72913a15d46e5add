"""Whether the shared level is asked at all: not for a while after it failed several times, then once to try."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

FAILURES: Final = 3
"""In a row, that open the circuit."""
_FIRST_SECONDS: Final = 1.0
_MOST_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Circuit:
    """Times are seconds on any clock that never goes back."""

    failures: int = 0
    """In a row."""
    open_until: float = 0.0

    @property
    def broken(self) -> bool:
        """Asking again is a trial."""
        return self.failures >= FAILURES

    def allows(self, now: float) -> bool:
        """Whether to ask now."""
        return now >= self.open_until

    def asking(self, now: float) -> Circuit:
        """While a trial is under way nobody else asks."""
        return replace(self, open_until=now + _FIRST_SECONDS) if self.broken else self

    def failed(self, now: float) -> Circuit:
        """Each failure after the third doubles the pause, up to half a minute."""
        failures = self.failures + 1
        if failures < FAILURES:
            return replace(self, failures=failures)
        seconds = min(_MOST_SECONDS, _FIRST_SECONDS * 2.0 ** min(failures - FAILURES, 10))
        return Circuit(failures, now + seconds)
