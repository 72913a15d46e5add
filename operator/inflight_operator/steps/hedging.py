"""After how long a request is asked of another pod as well, and which pods are too slow to be asked at all, from what
the routers report of each pod."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from inflight_operator.decide import tail
from inflight_operator.decide.hedging import Hedge
from inflight_operator.steps.context import Pass, VariantPlan
from inflight_operator.xds.model import Pace

EVERY_SECONDS: Final = 5.0
"""The last delay has to be seen in the reports before the next one is decided."""

Paces = Callable[[str, str], Mapping[str, Pace] | None]
"""(namespace, revision name) → the pace of its pods by address, None if unknown."""


@dataclass(frozen=True)
class Shortened:
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

    def step(self, run: Pass, plans: Sequence[VariantPlan], effective: Mapping[str, int]) -> Shortened | None:
        """For all variants that are asked together, since a route has one delay: the longest, and none if one of them
        has none. None: nobody wants it."""
        budget, memory = run.spec.traffic.hedge_percent, run.memory
        if budget is None:
            memory.tails.clear()
            memory.tails_at = None
            return None
        asked = [plan for plan in plans if effective[plan.variant.name]]
        due = memory.tails_at is None or run.now >= memory.tails_at + EVERY_SECONDS
        for plan in asked:
            name = plan.serving.name
            if due or name not in memory.tails:
                memory.tails[name] = tail.decide(
                    memory.tails.get(name, tail.Tail()),
                    self._paces(run.key[0], name),
                    _addresses(plan),
                    slots=int(plan.variant.server["concurrency"]),
                    budget=budget / 100,
                    now=run.now,
                )
        if due:
            memory.tails_at = run.now
        found = [(plan, memory.tails[plan.serving.name]) for plan in asked]
        hedges = [each.hedge for _, each in found]
        off = next((hedge for hedge in hedges if hedge.after is None), None)
        longest = max(hedges, key=lambda hedge: hedge.after or 0.0, default=Hedge(None, "nobody answers"))
        degraded = {plan.serving.name: each.away(_addresses(plan), run.now) for plan, each in found}
        return Shortened(off or longest, degraded)

    def again(self, run: Pass) -> float | None:
        """When to decide again."""
        if run.memory.tails_at is None:
            return None
        return max(0.1, run.memory.tails_at + EVERY_SECONDS - run.now)


def _addresses(plan: VariantPlan) -> frozenset[str]:
    return frozenset(address for address, *_ in plan.serving.endpoints)
