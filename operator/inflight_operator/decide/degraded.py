"""Which pods are degraded: much slower than the others, so that they are asked only where the others are too few.

What a pod takes is derived from the routers' load reports by Little's law. A degraded pod is asked nothing, so nothing
is learned of it: it comes back by itself after a while, and stays away twice as long each time that it was still slow,
as Envoy's outlier detection has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from statistics import median_low
from typing import Final

from inflight_operator.decide import hedging
from inflight_operator.xds.model import Pace

SLOWER: Final = 3.0
"""Times the median pod's latency: what makes a pod slow. One that shares a busy core takes twice as long."""
FIRST_SECONDS: Final = 20.0
MOST_SECONDS: Final = 320.0
"""How long a pod stays away the first time, and at most."""
LOOK_SECONDS: Final = 10.0
"""How long a pod that came back is looked at. As far back as its pace tells: what it took before is no longer in it."""
MOST_SHARE: Final = 1 / 3
"""Of the pods. Where the others are less than 1/1.4 of all, Envoy asks the degraded ones as much as is missing."""
ROOM_BELOW: Final = 0.75
"""Of their slots, what the others may use once they have the slow pod's requests too, each for as long as they take."""
NO_ROOM: Final = 0.9
"""Of their slots: with more in use a slow pod is better than none."""
ENOUGH_IN_PROGRESS: Final = 0.5
"""A pod with fewer requests in progress is never called slow: at four samples a second these are 20 of the 40 that ten
seconds have, and with one or two any of five equal pods is three times another one by chance."""
_ANSWERS_PER_SECOND: Final = 1.0
"""Below which a pod's latency is chance, unless it has a request all the time."""


@dataclass(frozen=True)
class Degraded:
    """Away from `since` until `until` (s, of the clock that `decide` is given), the `times`-th time in a row. It is
    remembered for a while after that."""

    since: float
    until: float
    times: int = 1


Book = Mapping[str, Degraded]
"""By a pod's address."""


def decide(before: Book, paces: Mapping[str, Pace] | None, *, pods: int, slots: int, now: float) -> Book:
    """`paces` by address (None: unknown, changes nothing) of those of the `pods` that were asked; each of them works on
    `slots` requests at once."""
    known = {a: d for a, d in before.items() if now < d.until + max(LOOK_SECONDS, d.until - d.since) + LOOK_SECONDS}
    if paces is None:
        return known
    gone = away(known, now)
    others = {address: pace for address, pace in paces.items() if address not in gone}
    used = hedging.used(others.values(), pods - len(gone), slots)
    if used > NO_ROOM:
        return {a: d for a, d in known.items() if a not in gone}
    latency = {address: took for address, pace in others.items() if (took := _latency(pace)) is not None}
    if len(latency) < 2:
        return known
    typical = median_low(latency.values())
    limit = SLOWER * typical
    slow = [
        address
        for address, took in latency.items()
        if took > limit and others[address].in_progress >= ENOUGH_IN_PROGRESS and _looked_at(known.get(address), now)
    ]
    for address in sorted(slow, key=lambda a: -latency[a]):
        left = pods - len(away(known, now)) - 1
        if left < pods * (1 - MOST_SHARE):
            break
        used += others[address].sent * typical / (left * slots)
        if used > ROOM_BELOW:
            break
        known[address] = _again(known.get(address), now)
    return known


def away(book: Book, now: float) -> frozenset[str]:
    """The addresses that are degraded now."""
    return frozenset(address for address, degraded in book.items() if now < degraded.until)


def _looked_at(degraded: Degraded | None, now: float) -> bool:
    return degraded is None or now >= degraded.until + LOOK_SECONDS


def _again(before: Degraded | None, now: float) -> Degraded:
    times = before.times + 1 if before else 1
    return Degraded(now, now + min(MOST_SECONDS, FIRST_SECONDS * 2 ** (times - 1)), times)


def _latency(pace: Pace) -> float | None:
    """Seconds; None: too few requests to say so."""
    if pace.answered >= _ANSWERS_PER_SECOND or (pace.in_progress >= 1 and pace.answered > 0):
        return pace.in_progress / pace.answered
    return inf if pace.in_progress >= 1 else None
