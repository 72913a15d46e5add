"""The routers that serve, from the EndpointSlices of their Service."""

from __future__ import annotations

from inflight_operator.api.world import Object
from inflight_operator.xds.model import Endpoint


def ready(piece: Object) -> frozenset[Endpoint]:
    """Those of one EndpointSlice, each once whatever ports it has."""
    port = next((port["port"] for port in piece.get("ports") or []), 0)
    return frozenset(
        Endpoint(address, port, endpoint.get("zone") or "")
        for endpoint in piece.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready")
        for address in endpoint["addresses"]
    )
