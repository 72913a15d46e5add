"""When a revision that lost its weight may go: after the routers let go of it and its last request ended.

It stays whole until then: endpoints and routes take a moment to propagate, and somebody may move the weight back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PROPAGATION_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Retirement:
    """`due`: retire now. Otherwise look again in `wait` seconds."""

    due: bool
    wait: float


def decide(weightless_for: float | None, in_flight: float | None, timeout_seconds: float) -> Retirement:
    """Decide for one superseded revision.

    `weightless_for` is seconds since every router acknowledged that it has no weight (None: not yet);
    `in_flight` its requests (None: unknown); `timeout_seconds` the longest that one may take.
    """
    if weightless_for is None:
        return Retirement(False, 1.0)
    idle = in_flight is not None and in_flight <= 0
    until = PROPAGATION_SECONDS + (0.0 if idle else timeout_seconds)
    return Retirement(weightless_for >= until, min(1.0, max(0.05, until - weightless_for)))
