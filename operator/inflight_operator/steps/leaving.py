"""Mark the pods that should leave first while there are more than the demand asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from inflight_operator.decide import leaving
from inflight_operator.errors import TransientError
from inflight_operator.kube.client import Kube
from inflight_operator.scaling_signal import Signal
from inflight_operator.steps.context import Pass, VariantPlan, soonest, together
from inflight_operator.xds.model import Endpoint

_log: Final = structlog.get_logger(__name__)

EVERY_SECONDS: Final = 10.0
"""How often a revision's marks may change. An HPA looks every 15 s."""

ByEndpoint = Callable[[str, str], Mapping[Endpoint, float] | None]
"""(namespace, revision name) → requests in flight of its endpoints, quiet ones left out; None if unknown."""


class Leaving:
    """Remembers what it has marked; after a restart an old mark may stay, and choose a pod that is no longer idle."""

    def __init__(self, kube: Kube, signal: Signal, by_endpoint: ByEndpoint, *, wanted: bool) -> None:
        self._kube = kube
        self._signal = signal
        self._by_endpoint = by_endpoint
        self._is_wanted = wanted

    async def step(self, run: Pass, plans: Iterable[VariantPlan]) -> float | None:
        """Do what is due; returns when to look again, None for never."""
        if not self._is_wanted:
            return None
        return soonest(*[await self._mark(run, plan) for plan in plans])

    async def _mark(self, run: Pass, plan: VariantPlan) -> float | None:
        revision, memory = plan.serving, run.memory
        name, before = revision.name, memory.leaving.get(revision.name, frozenset())
        demand = self._signal.demand(run.key[0], name)
        limits = run.limits(plan.variant)
        surplus = leaving.surplus(revision.replicas, demand, limits)
        if not surplus and not before:  # no event tells when an unknown demand is known
            return EVERY_SECONDS if demand is None and revision.replicas > limits.min_replicas else None
        if before and len(revision.endpoints) > revision.replicas:
            return EVERY_SECONDS  # they are being taken away right now, by their marks
        wait = memory.marked_at.get(name, float("-inf")) + EVERY_SECONDS - run.now
        if wait > 0:
            return max(0.1, wait)
        if (counts := self._by_endpoint(run.key[0], name)) is None:
            return EVERY_SECONDS
        in_flight = {address: 0.0 for address, *_ in revision.endpoints}
        for endpoint, count in counts.items():
            if endpoint.address in in_flight:
                in_flight[endpoint.address] += count
        chosen = leaving.decide(before, in_flight, surplus=surplus)
        costs: dict[str, str | None] = {a: leaving.COST for a in chosen - before} | dict.fromkeys(before - chosen)
        written = await together(*(self._write(run, revision.pods.get(a), cost) for a, cost in costs.items()))
        done = dict(zip(costs, written, strict=True))
        marked = (a for a in before | chosen if a in (chosen if done.get(a, True) else before))
        memory.leaving[name] = frozenset(marked)
        memory.marked_at[name] = run.now
        return None if all(written) else EVERY_SECONDS

    async def _write(self, run: Pass, pod: str | None, cost: str | None) -> bool:
        """Whether it is done. A refusal (of somebody's webhook, perhaps) keeps nothing else from being done."""
        try:
            if pod is not None:
                await self._kube.annotate("Pod", run.key[0], pod, {leaving.ANNOTATION: cost})
        except TransientError as error:
            _log.warning("a pod can't be marked now", pod=pod, error=str(error))
            return False
        return True
