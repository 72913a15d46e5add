"""Which pods should leave first once there are fewer: the idlest ones, by their pod deletion cost (KEP-2255).

Every drain ends well; that of an idle pod ends at once. Only pods that are about to be too many are marked, and only as
many as will go: a mark is a write, and the API's documentation warns of costs that follow a metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from inflight_operator.decide import scaling
from inflight_operator.decide.rollout import Limits

ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"
COST: Final = "-1"
"""Of a marked pod; that of the others is 0, the default."""
BETTER_BY: Final = 1.0
"""How many requests less another pod has to have before it takes a marked one's place."""


def surplus(replicas: int, demand: float | None, limits: Limits) -> int:
    """How many of the `replicas` an HPA takes away when its stabilisation window is over; 0 where nothing is known."""
    if demand is None or not replicas:
        return 0
    return max(0, replicas - scaling.wanted(replicas, demand, limits))


def decide(before: frozenset[str], in_flight: Mapping[str, float], *, surplus: int) -> frozenset[str]:
    """The addresses to mark, of all pods with their requests in flight. `before` are those that are marked now."""

    def order(address: str) -> tuple[float, bool, str]:
        marked = address in before
        return in_flight[address] - BETTER_BY * marked, not marked, address

    return frozenset(sorted(in_flight, key=order)[:surplus])
