"""When a request is asked of another pod as well: soon after the healthy pods would have answered, and seldom.

The delay cannot come from all latencies together: one slow pod of three *is* their 95th percentile, and waiting for it
is what hedging is against ("The Tail at Scale", Dean and Barroso, CACM 2013, waits for the 95th percentile of a service
whose pods are all alike). So each pod's mean latency is derived from what the routers report, by Little's law, and the
delay starts from the median pod's. How much later it has to be is found by feedback: the share of requests that were
asked twice is kept below the budget.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import log
from statistics import median_low
from typing import Final

from inflight_operator.xds.model import Pace

MOST_USED: Final = 0.75
"""Above this share of a pod's slots there is no room for requests that are asked twice. It is of the requests in
progress, those that wait for a slot included: 70 % of four pods' four slots are busy then."""
AGAIN_BELOW: Final = 0.68
"""And then not until it is less than that."""
FIRST: Final = 3.0
"""Of the median pod's latency: where the delay begins."""
LEAST: Final = 1.5
MOST: Final = 20.0
"""Of the median pod's latency: between what the delay stays."""
AIM: Final = 0.8
"""Of the budget: what is counted of ten seconds is one part in ten too much or too little by chance."""
LATER: Final = 1.5
SOONER: Final = 0.8
"""How much it changes at once, at most."""
_WORTH_TELLING: Final = 0.15
"""A delay that changes by less stays as it is, within the budget: routes are told to the routers whole."""
_LESSON: Final = 1.2
"""Of the budget: with more, or again, it was not by chance that the delay was too short."""
_PATIENCE: Final = 12
_MOST_LESSONS: Final = 6
_ENOUGH_PER_SECOND: Final = 2.0
"""Answers of all pods together, below which nothing can be said about them."""


@dataclass(frozen=True)
class Hedge:
    """`after` how many seconds a request is asked of another pod; None: it isn't, because of `why`.

    `too_soon` is a delay at which too much was asked twice. It is not tried again for `patience` decisions, twice as
    many after each time that it was: where a tenth of the requests takes ten times as long there is no delay at which a
    twentieth of them is asked twice, and one on either side would follow the other for ever.
    """

    after: float | None
    why: str = ""
    too_soon: float = 0.0
    patience: int = 0
    lesson: int = 0
    """How often it was too soon."""


def decide(before: Hedge, paces: Collection[Pace] | None, *, pods: int, slots: int, budget: float) -> Hedge:
    """`before` is what was decided last; `paces` are of pods that were asked (None: unknown), of `pods` that are ready
    and work on so many `slots` requests at once each; `budget` the share of requests that may be asked twice.

    What isn't known changes nothing. How much room there is the median pod says too: what waits for a slow one is no
    sign that the others are full.
    """
    if pods < 2:
        return Hedge(None, "there is no other pod")
    if paces is None:
        return before if before.after is not None else Hedge(None, "the load isn't known yet")
    if used(paces, pods, slots) > (most := AGAIN_BELOW if before.after is None else MOST_USED):
        return Hedge(None, f"more than {most:.0%} of the pods' slots are in use")
    answered = sum(pace.answered for pace in paces)
    latencies = [pace.in_progress / pace.answered for pace in paces if pace.answered > 0 and pace.in_progress > 0]
    if answered < _ENOUGH_PER_SECOND or not latencies:
        return before if before.after is not None else Hedge(None, "there are too few requests")
    base = median_low(latencies)
    if before.after is None:
        return Hedge(FIRST * base)
    # What was sent and not answered was asked twice, and its loser cancelled.
    twice = (sum(pace.sent for pace in paces) - answered) / answered
    return _next(before, before.after, twice / budget, _changed_by(twice, budget), base)


def used(paces: Collection[Pace], pods: int, slots: int) -> float:
    """The share of the median pod's slots that is taken, of so many pods; those without a pace are idle.

    What waits for a slow pod is no sign that the others are full.
    """
    quiet = [0.0] * (pods - len(paces))
    return median_low([*(pace.in_progress for pace in paces), *quiet] or [0.0]) / slots


def _changed_by(twice: float, budget: float) -> float:
    """So that AIM of the budget will be asked twice, if as few requests take much longer as of an exponential time."""
    if not 0 < twice < 1:
        return LATER if twice > 0 else SOONER
    return min(max(log(AIM * budget) / log(twice), SOONER), LATER)


def _next(before: Hedge, after: float, spent: float, factor: float, base: float) -> Hedge:
    """The delay after this one, with which that share of the budget was `spent`."""
    waits = replace(before, patience=max(0, before.patience - 1))
    wanted = min(max(after * factor, LEAST * base), MOST * base)
    if wanted > after and spent > 1:
        again = after <= before.too_soon * (1 + _WORTH_TELLING)
        lesson = min(before.lesson + 1, _MOST_LESSONS) if again or spent > _LESSON else before.lesson
        return Hedge(wanted, too_soon=after, patience=_PATIENCE * 2**lesson, lesson=lesson)
    if abs(wanted - after) < _WORTH_TELLING * after:
        return waits
    if before.patience and wanted <= before.too_soon * (1 + _WORTH_TELLING) and after <= MOST * base:
        return waits
    return replace(waits, after=wanted)
