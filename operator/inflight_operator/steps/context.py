"""What the steps of one reconcile hand to each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inflight_operator.api.names import Key
from inflight_operator.api.spec import Spec, Variant
from inflight_operator.api.world import Object, Revision, World
from inflight_operator.decide.rollout import Limits, Rollout
from inflight_operator.memory import Memory


@dataclass(frozen=True)
class Pass:
    """One reconcile: what was seen, what is asked for, what is remembered, and when (monotonic seconds)."""

    seen: World
    spec: Spec
    memory: Memory
    now: float

    @property
    def key(self) -> Key:
        """(namespace, name)."""
        return self.seen.key

    @property
    def resource(self) -> Object:
        """The ModelDeployment."""
        return self.seen.resource

    @property
    def told(self) -> Mapping[str, Mapping[str, Any]]:
        """What the status said of each variant last: it survives a restart."""
        variants = (self.resource.get("status") or {}).get("variants") or []
        return {variant["name"]: variant for variant in variants}

    def limits(self, variant: Variant) -> Limits:
        """The bounds of a variant's replicas."""
        scaling = self.spec.autoscaling
        return Limits(scaling.min_replicas, scaling.max_replicas, scaling.target(variant))


@dataclass(frozen=True)
class VariantPlan:
    """A variant, what was decided about it, and its two revisions (often the same one) as they are now."""

    variant: Variant
    rollout: Rollout
    target: Revision
    serving: Revision

    @property
    def revisions(self) -> tuple[Revision, ...]:
        """The revisions that the variant needs."""
        return (self.target,) if self.target is self.serving else (self.target, self.serving)


def needed(plans: Iterable[VariantPlan]) -> dict[str, Revision]:
    """Every revision that some variant needs, by name."""
    return {revision.name: revision for plan in plans for revision in plan.revisions}


def soonest(*times: float | None) -> float | None:
    """The first of the times at which to look again; None for never."""
    return min((time for time in times if time is not None), default=None)
