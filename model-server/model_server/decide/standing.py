"""Whether a queue stands: it has been long for longer than a burst would make it. Then it must dissolve.

CoDel (Nichols and Jacobson, RFC 8289) with its 20 : 1 of interval to target, both scaled to the service time: a
queue whose head has waited more than five services for twenty services on end only adds latency, to every answer.
CoDel drops what has waited; here arrivals are refused instead, because a refusal should come at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_TARGET_SERVICES: Final = 5
_INTERVAL_SERVICES: Final = 20
_TARGET_SECONDS: Final = 0.005
_INTERVAL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Standing:
    """Since when every request that left the queue had waited longer than the target; None: the last had not."""

    since: float | None = None

    def after(self, waited: float, now: float, service: float) -> Standing:
        """A request left the queue that had `waited` seconds; `service`: seconds that a prediction takes."""
        if waited < target(service):
            return CALM
        return Standing(now) if self.since is None else self

    def longest_wait(self, now: float, service: float) -> float:
        """Seconds that a request may be expected to wait and still be let in."""
        if self.since is None or now - self.since < max(_INTERVAL_SECONDS, _INTERVAL_SERVICES * service):
            return math.inf
        return target(service)


def target(service: float) -> float:
    """Seconds of waiting that are no standing queue."""
    return max(_TARGET_SECONDS, _TARGET_SERVICES * service)


CALM: Final = Standing()
