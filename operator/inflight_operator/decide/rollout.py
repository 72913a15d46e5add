"""Which revision of a variant has its weight, and how big the next one has to be before it may take it.

    target serving ready?   →  who has the weight       what is built
    none yet               →  target                    target at minReplicas
    target is serving      →  target                    target
    target too small       →  serving (old)             target born as big as the old one
    target big enough      →  target                    target; the old one drains

Capacity leads traffic: "big enough" is what the demand needs, and when the demand is unknown, as big as the old one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Replicas of a live revision: asked for, and ready."""

    replicas: int
    ready: int


@dataclass(frozen=True)
class Limits:
    """The variant's scaling bounds: replicas, and in-flight requests that one replica should have."""

    min_replicas: int
    max_replicas: int
    target_in_flight: int


@dataclass(frozen=True)
class Rollout:
    """The answer for one variant; all names are revision hashes.

    `birth` is the size the target has to be given (None: it has it): while it has no weight it has no HPA either.
    `needed` is how many of its replicas have to be ready before it takes the weight. `superseded` are live ones that
    are neither.
    """

    target: str
    serving: str
    birth: int | None
    needed: int
    superseded: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """The revision asked for has the weight."""
        return self.target == self.serving


def decide(
    target: str, recorded: str | None, live: Mapping[str, Size], limits: Limits, demand: float | None
) -> Rollout:
    """Decide for one variant.

    `recorded` is the revision that had the weight (status); `live` are revisions with a Deployment, by hash;
    `demand` is the serving revision's in-flight requests, None if unknown.
    """
    old = _serving(target, recorded, live)
    needed = replicas_for(demand, limits) if demand is not None else live[old].ready if old in live else 0
    needed = max(limits.min_replicas, min(needed, limits.max_replicas))
    size = live.get(target, Size(0, 0))
    takes_over = old == target or size.ready >= needed or old not in live
    serving = target if takes_over else old
    inherited = live[old].replicas if old in live and old != target else 0
    goal = max(limits.min_replicas, min(max(inherited, 0 if takes_over else needed), limits.max_replicas))
    small = target not in live or (not takes_over and size.replicas < goal)
    superseded = tuple(sorted(name for name in live if name not in (target, serving)))
    return Rollout(target, serving, goal if small else None, needed, superseded)


def replicas_for(demand: float, limits: Limits) -> int:
    """Replicas that `demand` in-flight requests need: the HPA's own formula, ceil(total / target), at least one."""
    return max(1, math.ceil(round(demand / limits.target_in_flight, 3)))


def _serving(target: str, recorded: str | None, live: Mapping[str, Size]) -> str:
    """The revision that has the weight now. A lost or unknown record: the one with most ready replicas."""
    if recorded in live or recorded == target:
        return recorded or target
    others = [name for name, size in live.items() if name != target and size.ready]
    if live.get(target, Size(0, 0)).ready or not others:
        return target
    return max(others, key=lambda name: (live[name].ready, name))
