"""Which zones the routers are told of: those of endpoints that a router may keep to its own zone for. Pure.

A router knows only its own requests. One that sends to all zones finds, behind the pod that it holds for the least
busy one, requests that it knows nothing of; one that keeps to its zone's pods knows all of theirs, but has fewer to
choose from. So each wins somewhere: with LEAST pods in each zone requests wait less when they stay (docs/adr/0016).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from .model import Endpoint

LEAST = 8


def told(ready: Collection[Endpoint], least: int = LEAST) -> Mapping[str, list[Endpoint]]:
    """Endpoints in order, by zone; all under "" where the zones are better not told, or are not known."""
    ordered = sorted(ready)
    by_zone: dict[str, list[Endpoint]] = {}
    for endpoint in ordered:
        by_zone.setdefault(endpoint.zone, []).append(endpoint)
    if len(by_zone) < 2 or "" in by_zone or min(map(len, by_zone.values())) < least:
        return {"": ordered} if ordered else {}
    return dict(sorted(by_zone.items()))
