"""What shortens the tail of one revision: who is too slow to be asked, and then when another pod is asked as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inflight_operator.decide import degraded, hedging
from inflight_operator.decide.degraded import Book
from inflight_operator.decide.hedging import Hedge
from inflight_operator.xds.model import Pace


@dataclass(frozen=True)
class Tail:
    """`book`: which pods are degraded, and for how long, also of some that are gone. `hedge`: the delay of the rest."""

    book: Book = field(default_factory=dict)
    hedge: Hedge = field(default_factory=lambda: Hedge(None))

    def away(self, there: frozenset[str], now: float) -> frozenset[str]:
        """Those of the pods that are `there` that are degraded now, by address."""
        return degraded.away(self.book, now) & there


def decide(
    before: Tail,
    paces: Mapping[str, Pace] | None,
    there: frozenset[str],
    *,
    slots: int,
    budget: float,
    now: float,
) -> Tail:
    """`paces` by address (None: unknown), also of pods that are no longer `there`, since reports tell of them for a
    while; each works on `slots` requests at once. `budget` is the share of requests that may be asked twice."""
    known = {a: pace for a, pace in paces.items() if a in there} if paces is not None else None
    book = degraded.decide(before.book, known, pods=len(there), slots=slots, now=now)
    gone = degraded.away(book, now) & there
    others = [pace for address, pace in known.items() if address not in gone] if known is not None else None
    hedge = hedging.decide(before.hedge, others, pods=len(there) - len(gone), slots=slots, budget=budget)
    return Tail(book, hedge)
