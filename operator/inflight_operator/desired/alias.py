"""The ModelDeployment's own Service: a DNS alias of the router. Nothing in it can go stale."""

from __future__ import annotations

from inflight_operator.api import names
from inflight_operator.api.world import Object
from inflight_operator.desired.common import child


def service(resource: Object, router_host: str) -> Object:
    """A Service of type ExternalName, so that `http://<name>.<namespace>.svc` reaches the router."""
    name = resource["metadata"]["name"]
    return child(
        resource,
        "v1",
        "Service",
        name,
        names.labels(name),
        spec={"type": "ExternalName", "externalName": router_host, "sessionAffinity": "None"},
    )


def url(name: str, namespace: str, *, tls: bool) -> str:
    """Where clients inside the cluster send requests."""
    return f"{'https' if tls else 'http'}://{name}.{namespace}.svc"
