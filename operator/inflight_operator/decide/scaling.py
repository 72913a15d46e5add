"""How many replicas a revision should have, where no HPA can say it (`metricsApi.mode: none`).

The HPA's own rules, so that both modes do the same (KEP-853, k8s.io/kubernetes/pkg/controller/podautoscaler):

    wanted = ceil(in-flight / target), left alone within 10 % of what there is, within minReplicas and maxReplicas
    up at once; down only to the most that was wanted during the stabilisation window

No data is an outcome of its own: the replicas are held, and so is what is remembered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from inflight_operator.decide.rollout import Limits

TOLERANCE: Final = 0.1
"""The HPA's default: a demand that differs less than this from what the replicas are meant for changes nothing."""

Wish = tuple[float, int]
"""When (monotonic seconds), and how many replicas were wanted then."""


@dataclass(frozen=True)
class Scaling:
    """`replicas` to have now. `wishes`: what to remember, the oldest first. `wait`: seconds until fewer are allowed."""

    replicas: int
    wishes: tuple[Wish, ...]
    wait: float | None


def decide(
    current: int, demand: float | None, limits: Limits, *, window: float, wishes: tuple[Wish, ...], now: float
) -> Scaling:
    """Decide for one revision with weight.

    `current` replicas are asked for now; `demand` is in-flight requests, None if unknown; `window` is the
    stabilisation window in seconds. Zero replicas are somebody's decision and stay, as an HPA leaves them.
    """
    if current == 0:
        return Scaling(0, wishes, None)
    # Nothing remembered is a fresh operator: what there is counts as wanted now, so that a restart shrinks nothing.
    remembered = wishes or ((now, current),)
    if demand is None:
        return Scaling(_within(limits, current), remembered, None)
    wanted_now = wanted(current, demand, limits)
    remembered = _remember(remembered, (now, wanted_now), now - window)
    floor = max(count for _, count in remembered)
    replicas = wanted_now if wanted_now > current else min(current, floor)
    pending = replicas > wanted_now
    return Scaling(replicas, remembered, remembered[0][0] + window - now if pending else None)


def wanted(current: int, demand: float, limits: Limits) -> int:
    """Replicas for this demand, where there are `current` ones (not 0) now."""
    target = limits.target_in_flight
    ratio = round(demand / (target * current), 3)  # an HPA is told thousandths
    if round(abs(ratio - 1.0), 3) <= TOLERANCE:
        return _within(limits, current)
    return _within(limits, math.ceil(round(demand / target, 3)))


def _within(limits: Limits, count: int) -> int:
    return max(limits.min_replicas, min(count, limits.max_replicas))


def _remember(wishes: tuple[Wish, ...], wish: Wish, since: float) -> tuple[Wish, ...]:
    """The wishes that can still be the most of a window, newest last: a later one that is as high outlives the rest."""
    return (*((at, count) for at, count in wishes if at > since and count > wish[1]), wish)
