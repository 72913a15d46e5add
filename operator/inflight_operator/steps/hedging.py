"""After how long a request is asked of another pod as well, from what the routers report of each pod."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from inflight_operator.decide import hedging
from inflight_operator.decide.hedging import Hedge
from inflight_operator.steps.context import Pass, VariantPlan
from inflight_operator.xds.model import Pace

EVERY_SECONDS: Final = 5.0
"""The last delay has to be seen in the reports before the next one is decided."""

Paces = Callable[[str, str], Mapping[str, Pace] | None]
"""(namespace, revision name) → the pace of its pods by address, None if unknown."""


class Hedging:
    """Remembers the delay of each revision; after a restart it begins anew."""

    def __init__(self, paces: Paces) -> None:
        self._paces = paces

    def step(self, run: Pass, plans: Sequence[VariantPlan], effective: Mapping[str, int]) -> Hedge | None:
        """For all variants that are asked together, since a route has one delay: the longest, and none if one of them
        has none. None: nobody wants it."""
        budget, memory = run.spec.traffic.hedge_percent, run.memory
        if budget is None:
            memory.hedges.clear()
            memory.hedged_at = None
            return None
        asked = [plan for plan in plans if effective[plan.variant.name]]
        due = memory.hedged_at is None or run.now >= memory.hedged_at + EVERY_SECONDS
        for plan in asked:
            if due or plan.serving.name not in memory.hedges:
                memory.hedges[plan.serving.name] = self._decide(run, plan, budget / 100)
        if due:
            memory.hedged_at = run.now
        found = [memory.hedges[plan.serving.name] for plan in asked]
        off = next((hedge for hedge in found if hedge.after is None), None)
        return off or max(found, key=lambda hedge: hedge.after or 0.0, default=Hedge(None, "nobody answers"))

    def again(self, run: Pass) -> float | None:
        """When to decide again."""
        if run.memory.hedged_at is None:
            return None
        return max(0.1, run.memory.hedged_at + EVERY_SECONDS - run.now)

    def _decide(self, run: Pass, plan: VariantPlan, budget: float) -> Hedge:
        before = run.memory.hedges.get(plan.serving.name)
        found = self._paces(run.key[0], plan.serving.name)
        paces = list(found.values()) if found is not None else None
        slots = int(plan.variant.server["concurrency"])
        return hedging.decide(before or Hedge(None), paces, pods=plan.serving.ready, slots=slots, budget=budget)
