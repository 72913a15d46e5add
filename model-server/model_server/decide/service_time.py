"""How long a prediction of n rows takes: a line a·n + b through what was measured lately.

Least squares over exponentially faded measurements (weight 0.95 per prediction: about the last twenty count), as
BentoML's dispatcher fits its last fifty (CorkDispatcher). Admission and batching ask the same instance.
"""

from __future__ import annotations

from typing import Final

_FADE: Final = 0.95
_SMOOTHING: Final = 0.1
_SPREAD: Final = 1e-9


class ServiceTime:
    """Seconds that a prediction takes, by its number of rows; 0 before anything was measured."""

    __slots__ = ("_deviation", "_products", "_rows", "_seconds", "_squares", "_weight", "base", "per_row")

    def __init__(self) -> None:
        self._weight = self._rows = self._squares = self._seconds = self._products = 0.0
        self._deviation = 0.0
        self.base = 0.0
        """Seconds that a prediction takes whatever its size (b)."""
        self.per_row = 0.0
        """Seconds that one more row takes (a)."""

    @property
    def measured(self) -> bool:
        """Whether anything is known."""
        return self._weight > 0

    def observe(self, rows: int, seconds: float) -> None:
        """A prediction of `rows` rows took `seconds`."""
        if self.measured:
            self._deviation += _SMOOTHING * (abs(seconds - self.expect(rows)) - self._deviation)
        self._weight = _FADE * self._weight + 1
        self._rows = _FADE * self._rows + rows
        self._squares = _FADE * self._squares + rows * rows
        self._seconds = _FADE * self._seconds + seconds
        self._products = _FADE * self._products + rows * seconds
        self._fit()

    def expect(self, rows: int) -> float:
        """Seconds that `rows` rows take on average."""
        return self.base + self.per_row * rows

    def at_most(self, rows: int) -> float:
        """Seconds that few predictions of `rows` rows exceed."""
        return self.base + self.per_row * rows + 2 * self._deviation

    def _fit(self) -> None:
        rows, seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._squares / self._weight - rows * rows
        if variance <= _SPREAD * rows * rows:
            # One size only so far. Nothing says what more rows would cost: nothing is assumed.
            self.base, self.per_row = seconds, 0.0
            return
        slope = (self._products / self._weight - rows * seconds) / variance
        # Neither may be negative: noise must not make a large prediction free, or a small one.
        self.per_row = min(max(slope, 0.0), seconds / rows)
        self.base = seconds - self.per_row * rows
