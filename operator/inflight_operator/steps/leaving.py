"""Mark the pods that should leave first while there are more than the demand asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import structlog

from inflight_operator.api.world import Revision
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
        memory.marked_at[name] = run.now
        try:
            await self._change(run.key[0], revision, chosen - before, before - chosen)
        except TransientError as error:  # somebody's webhook, perhaps: nothing else may wait for it
            memory.leaving[name] = before | chosen
            _log.warning("pods can't be marked now", revision=name, error=str(error))
            return EVERY_SECONDS
        memory.leaving[name] = chosen
        return None

    async def _change(self, namespace: str, revision: Revision, to: Iterable[str], back: Iterable[str]) -> None:
        """Mark the pods at these addresses, and take the mark from those."""
        costs = dict.fromkeys(to, leaving.COST) | dict.fromkeys(back)
        await together(
            *(
                self._kube.annotate("Pod", namespace, pod, {leaving.ANNOTATION: cost})
                for address, cost in costs.items()
                if (pod := revision.pods.get(address))
            )
        )
