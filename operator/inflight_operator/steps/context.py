"""What the steps of one reconcile hand to each other."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from inflight_operator.api.names import Key
from inflight_operator.api.spec import Spec, Variant
from inflight_operator.api.world import Object, Revision, World
from inflight_operator.decide.rollout import Limits, Rollout
from inflight_operator.memory import Memory
from inflight_operator.tasks import apart

T = TypeVar("T")


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
        """What the status said of each variant last."""
        return self.seen.told

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


async def together(*works: Coroutine[Any, Any, T]) -> list[T]:
    """Do at once what doesn't need each other; the first failure ends the others and is raised itself."""
    try:
        return await apart(_together(works))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    finally:
        for work in works:  # where this was cancelled before they began
            work.close()


async def _together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in works]
    return [task.result() for task in tasks]
