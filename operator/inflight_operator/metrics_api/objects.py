"""The JSON that this API speaks: discovery, one metric, and Status for everything that is not one. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

GROUP: Final = "custom.metrics.k8s.io"
VERSION: Final = "v1beta2"
GROUP_VERSION: Final = f"{GROUP}/{VERSION}"
RESOURCE: Final = "deployments.apps"
METRIC: Final = "inflight_requests"

Json = dict[str, Any]

_REASONS: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    500: "InternalError",
    503: "ServiceUnavailable",
}


def group_list() -> Json:
    """The answer to GET /apis."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group()]}


def group() -> Json:
    """The answer to GET /apis/custom.metrics.k8s.io."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_group()}


def resource_list() -> Json:
    """The answer to GET /apis/custom.metrics.k8s.io/v1beta2."""
    metric = {
        "name": f"{RESOURCE}/{METRIC}",
        "singularName": "",
        "namespaced": True,
        "kind": "MetricValueList",
        "verbs": ["get"],
    }
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION, "resources": [metric]}


def metric_value(namespace: str, name: str, value: float, at: datetime, window_seconds: int) -> Json:
    """A MetricValueList (v1beta2) with the in-flight requests of one Deployment, in thousandths."""
    item = {
        "describedObject": {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": namespace, "name": name},
        "metric": {"name": METRIC},
        "timestamp": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "windowSeconds": window_seconds,
        "value": f"{round(value * 1000)}m",
    }
    return {"kind": "MetricValueList", "apiVersion": GROUP_VERSION, "metadata": {}, "items": [item]}


def failure(code: int, message: str) -> Json:
    """A Status, the form in which Kubernetes clients expect an error."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": _REASONS.get(code, "Unknown"),
        "message": message,
        "code": code,
    }


def _group() -> Json:
    version = {"groupVersion": GROUP_VERSION, "version": VERSION}
    return {"name": GROUP, "versions": [version], "preferredVersion": version}
