"""What was measured, and what many rounds of it say: pure, no clocks and no files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Sample:
    """One server under one load in one round."""

    work: str
    server: str
    point: str
    """The load: "64 connections", "50 clients, retry 0.1 s", ..."""
    round: int
    values: Mapping[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spread:
    """A value over all rounds."""

    median: float
    lowest: float
    highest: float
    rounds: int

    def __str__(self) -> str:
        return shown(self.median)

    @property
    def range(self) -> str:
        """Lowest to highest."""
        return f"{shown(self.lowest)}–{shown(self.highest)}"


def spread(values: Iterable[float]) -> Spread | None:
    """None without values; infinities (never, nothing came) count as what they are."""
    found = sorted(value for value in values if not math.isnan(value))
    return Spread(median(found), found[0], found[-1], len(found)) if found else None


class Table:
    """All samples, by work, server, point and value."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def of(self, work: str, server: str, point: str, value: str) -> Spread | None:
        """Over the rounds."""
        return spread(
            sample.values[value]
            for sample in self.samples
            if (sample.work, sample.server, sample.point) == (work, server, point) and value in sample.values
        )

    def servers(self, work: str) -> list[str]:
        """That were measured, in the order of their first sample."""
        return list(dict.fromkeys(sample.server for sample in self.samples if sample.work == work))

    def points(self, work: str) -> list[str]:
        """That were measured, in order."""
        return list(dict.fromkeys(sample.point for sample in self.samples if sample.work == work))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all are not above (nearest rank); NaN without values."""
    if not values:
        return math.nan
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def shown(value: float) -> str:
    """Three digits that matter."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "never"
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(0, digits)}f}"
