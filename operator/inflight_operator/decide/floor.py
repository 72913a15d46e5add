"""The fewest replicas that an HPA may keep, where it sees requests only once they are there (prometheus-adapter).

Capacity leads traffic, but such an HPA can't be told of traffic to come, and the weight waits for the replicas: both
would wait for ever. So minReplicas are raised, for a variant that gains weight, to what its share needs, and stay there
until the HPA can know the load itself. Only ever up meanwhile: a demand that wavers writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from inflight_operator.decide.rollout import Limits, replicas_for

LAG_SECONDS: Final = 120.0
"""From a request to the HPA that acts on it: a scrape (30 s), the mean that the adapter's rule takes (60 s), the HPA's
own period (15 s), and some room."""


@dataclass(frozen=True)
class Floor:
    """At least so many replicas, until then (monotonic seconds)."""

    replicas: int
    until: float


def decide(limits: Limits, ahead: float | None, before: Floor | None, now: float) -> Floor | None:
    """The floor from now on; None: the user's minReplicas.

    `ahead`: in-flight requests that the variant has to be ready for before it gets more weight; None: it gains none,
    or nothing is known.
    """
    known = before if before and now < before.until else None
    if ahead is None and known is None:
        return None
    wanted = 0 if ahead is None else replicas_for(ahead, limits)
    replicas = max(limits.min_replicas, wanted, known.replicas if known else 0)
    until = known.until if known and ahead is None else now + LAG_SECONDS
    return Floor(min(replicas, limits.max_replicas), until)
