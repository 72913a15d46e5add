"""Whether a queue stands: it has been long for longer than a burst would make it. Then it must dissolve.

CoDel (Nichols and Jacobson, RFC 8289), scaled to what is served: a queue whose head has waited longer than the target
for an interval on end only adds latency, to every answer. The target is five services, but no less than a quarter of
the time that a request may take: queueing for less is what a queue is for, while replicas are added. CoDel drops what
has waited; here arrivals are refused instead, because a refusal should come at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_TARGET_SERVICES: Final = 5
_TARGET_SHARE: Final = 0.25
_INTERVAL_SERVICES: Final = 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds: how long a request may wait, and how long all may wait longer than that."""

    target: float
    interval: float


def bounds(service: float, patience: float) -> Bounds:
    """For predictions that take `service` seconds, and requests that may take `patience` seconds."""
    return Bounds(
        max(_TARGET_SERVICES * service, _TARGET_SHARE * patience), max(_INTERVAL_SERVICES * service, patience)
    )


@dataclass(frozen=True, slots=True)
class Standing:
    """Since when every request that left the queue had waited longer than the target; None: the last had not."""

    since: float | None = None

    def after(self, waited: float, now: float, allowed: Bounds) -> Standing:
        """A request left the queue that had `waited` seconds."""
        if waited < allowed.target:
            return CALM
        return Standing(now) if self.since is None else self

    def longest_wait(self, now: float, allowed: Bounds) -> float:
        """Seconds that a request may be expected to wait and still be let in."""
        stands = self.since is not None and now - self.since >= allowed.interval
        return allowed.target if stands else math.inf


CALM: Final = Standing()
