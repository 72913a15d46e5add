"""How long a prediction of n rows takes: a line a·n + b through what was measured lately.

Least squares over exponentially faded measurements (weight 0.95 per prediction: about the last twenty count), as
BentoML's dispatcher fits its last fifty (CorkDispatcher). Admission and batching ask the same instance.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

_FADE: Final = 0.95
_SPREAD: Final = 1e-9


class _Line(NamedTuple):
    """Seconds."""

    per_row: float
    base: float
    deviation: float
    """Standard deviation of the measurements from the line."""


_NOTHING: Final = _Line(0.0, 0.0, 0.0)


class ServiceTime:
    """Seconds that a prediction takes, by its number of rows; 0 before anything was measured."""

    __slots__ = ("_fitted", "_products", "_row_squares", "_rows", "_second_squares", "_seconds", "_weight")

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = 0.0
        self._row_squares = self._second_squares = self._products = 0.0
        self._fitted: _Line | None = None

    @property
    def measured(self) -> bool:
        """Whether anything is known."""
        return self._weight > 0

    def observe(self, rows: int, seconds: float) -> None:
        """A prediction of `rows` rows took `seconds`."""
        self._weight = _FADE * self._weight + 1
        self._rows = _FADE * self._rows + rows
        self._seconds = _FADE * self._seconds + seconds
        self._row_squares = _FADE * self._row_squares + rows * rows
        self._second_squares = _FADE * self._second_squares + seconds * seconds
        self._products = _FADE * self._products + rows * seconds
        self._fitted = None  # fitted when asked: a server that never queues never asks

    def expect(self, rows: int) -> float:
        """Seconds that `rows` rows take on average."""
        line = self._fitted or self._fit()
        return line.base + line.per_row * rows

    def at_most(self, rows: int) -> float:
        """Seconds that few predictions of `rows` rows exceed."""
        line = self._fitted or self._fit()
        return line.base + line.per_row * rows + 2 * line.deviation

    def _fit(self) -> _Line:
        if not self.measured:
            return _NOTHING
        rows, seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._row_squares / self._weight - rows * rows
        slope = 0.0
        # With one size only so far nothing says what more rows would cost: nothing is assumed.
        if variance > _SPREAD * rows * rows:
            slope = (self._products / self._weight - rows * seconds) / variance
            # Neither may be negative: noise must not make a large prediction free, or a small one.
            slope = min(max(slope, 0.0), seconds / rows)
        unexplained = self._second_squares / self._weight - seconds * seconds - slope * slope * variance
        self._fitted = _Line(slope, seconds - slope * rows, math.sqrt(max(0.0, unexplained)))
        return self._fitted
