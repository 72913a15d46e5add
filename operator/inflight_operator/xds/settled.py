"""How many requests are in progress, from samples of it: recent enough to follow a step, long enough to be steady.

A mean over more samples is steadier, but only as long as the load has not changed. So the window is chosen anew
each time by the intersection of confidence intervals (Goldenshluger and Nemirovski 1997, Katkovnik 1999): from the
shortest on, a longer window is taken as long as its mean is one that every shorter one allows. After a step the long
windows are not, and the shortest answers alone: it is whole after WINDOWS[0] seconds. No answer exceeds the largest
sample, so a step doesn't overshoot. Pure: no clock, no state but the samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

WINDOWS: Final = (6.0, 12.0, 24.0, 48.0)
"""Seconds, the shortest first."""
_TRUST: Final = 3.0
"""Standard deviations within which a mean is believed."""
_LEAST_NOISE: Final = 0.1
_ORDINARY: Final = 0.9
"""The share of successive samples whose differences are noise; the largest others may be steps."""
_FEW: Final = 4


def estimate(counts: Sequence[int], lengths: Sequence[int]) -> float:
    """Requests in progress, from samples of it, the newest first; `lengths`: how many there are in each of WINDOWS.

    Zero when the shortest window saw none. Samples before the first request are no part of the load.
    """
    if not any(counts[: lengths[0]]):
        return 0.0
    began = len(counts)
    while not counts[began - 1]:
        began -= 1
    noise = dispersion(counts[:began])
    chosen, least, most = 0.0, 0.0, math.inf
    for length in lengths:
        taken = min(length, max(began, lengths[0]))
        mean = sum(counts[:taken]) / taken
        if not least <= mean <= most:
            break
        margin = _TRUST * math.sqrt(noise * mean / taken)
        chosen, least, most = mean, max(least, mean - margin), min(most, mean + margin)
    return chosen


def dispersion(counts: Sequence[int]) -> float:
    """Variance of the noise over the mean: 1 for requests that come by chance, almost 0 for clients that wait.

    Told by successive differences, which neither a trend nor a step inflates much; never more than 1, so that a
    load that jumps about is followed rather than averaged.
    """
    ratios = sorted((a - b) ** 2 / (a + b) for a, b in pairwise(counts) if a + b)
    if len(ratios) < _FEW:
        return 1.0
    ordinary = ratios[: math.ceil(_ORDINARY * len(ratios))]
    return min(1.0, max(_LEAST_NOISE, sum(ordinary) / len(ordinary)))
