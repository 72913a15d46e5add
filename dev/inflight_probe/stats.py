"""The arithmetic of verdicts: percentiles and whether a split is within chance. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


def percentile(values: Iterable[float], q: float) -> float:
    """The smallest value that at least `q` percent of `values` do not exceed (nearest rank); NaN if none."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(math.ceil(len(ordered) * q / 100) - 1, 0)]


@dataclass(frozen=True)
class Share:
    """One variant's part of the traffic against its weight (percent)."""

    variant: str
    weight: int
    count: int
    total: int

    @property
    def observed(self) -> float:
        """Percent of the traffic that this variant answered."""
        return 100 * self.count / self.total if self.total else math.nan

    @property
    def sigmas(self) -> float:
        """Distance from the weight in standard deviations of a fair draw; infinite for the impossible."""
        p = self.weight / 100
        deviation = math.sqrt(p * (1 - p) * self.total)
        off = abs(self.count - p * self.total)
        if deviation == 0:
            return 0.0 if off == 0 else math.inf
        return off / deviation

    def within(self, sigmas: float = 4) -> bool:
        """Whether chance explains the difference. 4 sigma is wrong once in 16,000 honest splits."""
        return self.total > 0 and self.sigmas <= sigmas


def shares(counts: Mapping[str, int], weights: Mapping[str, int]) -> list[Share]:
    """Every variant's share, in the order of `weights`; a variant that no weight names counts against 0 %."""
    total = sum(counts.values())
    named = {**weights, **{variant: 0 for variant in counts if variant not in weights}}
    return [Share(variant, weight, counts.get(variant, 0), total) for variant, weight in named.items()]
