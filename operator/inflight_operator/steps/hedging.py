"""After how long a request is asked of another pod as well, and which pods are too slow to be asked at all, from what
the routers report of each pod."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from inflight_operator.decide import degraded, hedging
from inflight_operator.decide.hedging import Hedge
from inflight_operator.steps.context import Pass, VariantPlan
from inflight_operator.xds.model import Pace

EVERY_SECONDS: Final = 5.0
"""The last delay has to be seen in the reports before the next one is decided."""

Paces = Callable[[str, str], Mapping[str, Pace] | None]
"""(namespace, revision name) → the pace of its pods by address, None if unknown."""


@dataclass(frozen=True)
class Tail:
    """What shortens the tail now: one delay for all that are asked together, and degraded addresses by revision."""

    hedge: Hedge
    degraded: Mapping[str, frozenset[str]]

    @property
    def milliseconds(self) -> int | None:
        """The delay, for the routers; None: there is none."""
        return max(1, round(1000 * self.hedge.after)) if self.hedge.after is not None else None


class Hedging:
    """Remembers the delay and the slow pods of each revision; after a restart it begins anew."""

    def __init__(self, paces: Paces) -> None:
        self._paces = paces

    def step(self, run: Pass, plans: Sequence[VariantPlan], effective: Mapping[str, int]) -> Tail | None:
        """For all variants that are asked together, since a route has one delay: the longest, and none if one of them
        has none. None: nobody wants it."""
        budget, memory = run.spec.traffic.hedge_percent, run.memory
        if budget is None:
            memory.hedges.clear()
            memory.degraded.clear()
            memory.hedged_at = None
            return None
        asked = [plan for plan in plans if effective[plan.variant.name]]
        due = memory.hedged_at is None or run.now >= memory.hedged_at + EVERY_SECONDS
        for plan in asked:
            if due or plan.serving.name not in memory.hedges:
                self._decide(run, plan, budget / 100)
        if due:
            memory.hedged_at = run.now
        found = [memory.hedges[plan.serving.name] for plan in asked]
        off = next((hedge for hedge in found if hedge.after is None), None)
        longest = max(found, key=lambda hedge: hedge.after or 0.0, default=Hedge(None, "nobody answers"))
        return Tail(off or longest, {plan.serving.name: _away(run, plan) for plan in asked})

    def again(self, run: Pass) -> float | None:
        """When to decide again."""
        if run.memory.hedged_at is None:
            return None
        return max(0.1, run.memory.hedged_at + EVERY_SECONDS - run.now)

    def _decide(self, run: Pass, plan: VariantPlan, budget: float) -> None:
        """First who is slow, then the delay from those who are left."""
        name, memory = plan.serving.name, run.memory
        found = self._paces(run.key[0], name)
        there = _addresses(plan)  # reports tell of pods that are gone for a while
        paces = {a: pace for a, pace in found.items() if a in there} if found is not None else None
        ready, slots = plan.serving.ready, int(plan.variant.server["concurrency"])
        book = degraded.decide(memory.degraded.get(name, {}), paces, pods=ready, slots=slots, now=run.now)
        memory.degraded[name] = book
        gone = _away(run, plan)
        others = [pace for address, pace in paces.items() if address not in gone] if paces is not None else None
        before = memory.hedges.get(name) or Hedge(None)
        memory.hedges[name] = hedging.decide(before, others, pods=ready - len(gone), slots=slots, budget=budget)


def _away(run: Pass, plan: VariantPlan) -> frozenset[str]:
    """Those of a revision's pods that are degraded now; the book may have some that are gone."""
    return degraded.away(run.memory.degraded.get(plan.serving.name, {}), run.now) & _addresses(plan)


def _addresses(plan: VariantPlan) -> frozenset[str]:
    return frozenset(address for address, *_ in plan.serving.endpoints)
