"""Follow the demand: an HPA does, or, where no metric can be served to HPAs, the operator itself by the same rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from inflight_operator.api.world import Revision
from inflight_operator.apply.scale import Case, Scale
from inflight_operator.decide import floor, health, scaling
from inflight_operator.scaling_signal import Signal
from inflight_operator.settings import MetricsMode
from inflight_operator.steps.context import Pass, VariantPlan, soonest
from inflight_operator.telemetry import DESIRED_REPLICAS

LOOK_AGAIN_SECONDS: Final = 2.0
"""Demand that is not known yet is asked for so often, since no event tells when it is."""


class Scaling:
    """Sets replicas where there is no HPA; says either way how the revisions with weight are being scaled."""

    def __init__(self, scale: Scale, signal: Signal, metrics_api: MetricsMode, why_alone: str) -> None:
        self._scale = scale
        self._signal = signal
        self._why_alone = why_alone
        self._by_hpa = metrics_api is not MetricsMode.NONE
        self._told_ahead = metrics_api is not MetricsMode.PROMETHEUS_ADAPTER

    def floors(self, run: Pass) -> dict[str, int]:
        """The replicas below which each variant's HPA may not go now: more than the user's minReplicas where an HPA
        can't be told of the traffic that is to come."""
        decided = {}
        for variant in () if self._told_ahead else run.spec.variants:
            ahead, before = self._signal.ahead(run.key, variant.name), run.memory.floors.get(variant.name)
            if found := floor.decide(run.limits(variant), ahead, before, run.now):
                decided[variant.name] = found
        run.memory.floors = decided
        least = dict.fromkeys((variant.name for variant in run.spec.variants), run.spec.autoscaling.min_replicas)
        return least | {name: found.replicas for name, found in decided.items()}

    async def step(self, run: Pass, plans: Iterable[VariantPlan]) -> float | None:
        """Do what is due; returns when to look again, None for never."""
        plans = list(plans)
        for plan in plans:
            labels = {"namespace": run.key[0], "name": run.key[1], "variant": plan.variant.name}
            DESIRED_REPLICAS.labels(**labels).set(plan.serving.replicas)
        if self._by_hpa:
            return None
        return soonest(*[await self._follow(run, plan) for plan in plans])

    def told(self, run: Pass, plans: Iterable[VariantPlan]) -> list[health.Scaling]:
        """How the revisions with weight are being scaled."""
        return [_by_hpa(plan.serving) if self._by_hpa else self._by_operator(run, plan.serving) for plan in plans]

    def _by_operator(self, run: Pass, revision: Revision) -> health.Scaling:
        if not revision.replicas:
            return health.Scaling(revision.name, False, "scaled to 0 replicas by hand, and left there", by_hpa=False)
        known = self._signal.demand(run.key[0], revision.name) is not None
        return health.Scaling(revision.name, True if known else None, self._why_alone, by_hpa=False)

    async def _follow(self, run: Pass, plan: VariantPlan) -> float | None:
        revision, memory = plan.serving, run.memory
        demand = self._signal.demand(run.key[0], revision.name)
        decided = scaling.decide(
            revision.replicas,
            demand,
            run.limits(plan.variant),
            window=run.spec.autoscaling.scale_down_stabilization_seconds,
            wishes=memory.wishes.get(revision.name, ()),
            now=run.now,
        )
        memory.wishes[revision.name] = decided.wishes
        if decided.replicas != revision.replicas:
            await self._scale.to(revision.objects["Deployment"], decided.replicas, Case.DEMAND)
        return LOOK_AGAIN_SECONDS if demand is None and revision.replicas else decided.wait


def _by_hpa(revision: Revision) -> health.Scaling:
    """What a revision's HPA says of itself."""
    hpa: Mapping[str, Any] = revision.objects.get("HorizontalPodAutoscaler") or {}
    for item in (hpa.get("status") or {}).get("conditions") or []:
        if item["type"] == "ScalingActive":
            return health.Scaling(revision.name, item["status"] == "True", item.get("message") or "")
    return health.Scaling(revision.name, None, "")
