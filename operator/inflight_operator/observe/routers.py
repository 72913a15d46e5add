"""The routers that serve, from the EndpointSlices of their Service."""

from __future__ import annotations

from collections.abc import Mapping

from inflight_operator.api import names
from inflight_operator.api.world import Object
from inflight_operator.kube.client import Kube
from inflight_operator.xds.model import Endpoint

Routers = Mapping[str, Endpoint]
"""By the name of their pod, which a router calls itself by."""


async def listed(kube: Kube, namespace: str, service: str) -> dict[str, Routers]:
    """Those of each EndpointSlice of the routers' Service, by its name."""
    slices = (await kube.list("EndpointSlice", namespace, f"{names.SERVICE_NAME}={service}")).items
    return {piece["metadata"]["name"]: ready(piece) for piece in slices}


def ready(piece: Object) -> Routers:
    """Those of one EndpointSlice, each once whatever ports and addresses it has."""
    port = next((port["port"] for port in piece.get("ports") or []), 0)
    return {
        (endpoint.get("targetRef") or {}).get("name") or address: Endpoint(address, port, endpoint.get("zone") or "")
        for endpoint in piece.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready")
        for address in endpoint["addresses"]
    }
