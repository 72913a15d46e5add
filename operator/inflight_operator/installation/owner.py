"""What the operator makes for itself goes with the installation: it is owned by what the chart installed."""

from __future__ import annotations

from typing import Any, Final

from inflight_operator.api.world import Object
from inflight_operator.errors import TransientError
from inflight_operator.kube.client import Kube

SERVICE: Final = "inflight-operator"
CLUSTER_ROLE: Final = "inflight-operator"


async def of_namespaced(kube: Kube, namespace: str) -> dict[str, Any]:
    """The ownerReference of what lies in the operator's own namespace: its Service, which the chart made."""
    found = await kube.get("Service", namespace, SERVICE)
    return _reference("v1", "Service", SERVICE, found)


async def of_cluster(kube: Kube) -> dict[str, Any]:
    """The ownerReference of what lies in no namespace: the ClusterRole that the operator acts by."""
    found = await kube.get("ClusterRole", None, CLUSTER_ROLE)
    return _reference("rbac.authorization.k8s.io/v1", "ClusterRole", CLUSTER_ROLE, found)


def _reference(version: str, kind: str, name: str, found: Object | None) -> dict[str, Any]:
    if found is None:
        raise TransientError(f"{kind} {name} is missing: the chart makes it")
    return {"apiVersion": version, "kind": kind, "name": name, "uid": found["metadata"]["uid"]}
