"""The objects of one revision: its record, its Deployment, its Service, and its HPA while it has weight.

No manifest here contains spec.replicas: the HPA owns it, and `apply.scale` in a few named cases.
"""

from __future__ import annotations

from typing import Any, Final

from inflight_operator.api import names
from inflight_operator.api.spec import Autoscaling, Variant
from inflight_operator.api.world import Object, Revision
from inflight_operator.desired.common import child
from inflight_operator.desired.pod import Installation, template
from inflight_operator.settings import MetricsMode

HTTP_SERVICE_PORT: Final = 80


def record(
    resource: Object,
    variant: Variant,
    installation: Installation,
    number: int,
    known: Revision | None,
) -> Object:
    """The ControllerRevision: what the user asked for and the template rendered from it, kept as history.

    `known`: the revision exists already (somebody goes back to it): its record stays, only the number grows.
    """
    pinned = known.record if known else None
    name = resource["metadata"]["name"]
    rendered = {
        "model": dict(variant.model),
        "server": dict(variant.server),
        "template": template(name, variant, installation),
    }
    made = child(
        resource,
        "apps/v1",
        "ControllerRevision",
        names.revision_name(name, variant.name, variant.revision),
        names.labels(name, variant.name, variant.revision),
        data=dict(pinned or rendered),
        revision=number,
    )
    return _with_digest(made, known.digest if known else None)


def recorded(resource: Object, revision: Revision, sha256: str) -> Object:
    """The record of `revision` as it is, with the digest that its first pod had."""
    live = revision.objects["ControllerRevision"]
    made = child(
        resource,
        "apps/v1",
        "ControllerRevision",
        revision.name,
        names.labels(resource["metadata"]["name"], revision.variant, revision.revision),
        data=live["data"],
        revision=live["revision"],
    )
    return _with_digest(made, sha256)


def _with_digest(record: Object, sha256: str | None) -> Object:
    if sha256:
        record["metadata"]["annotations"][names.DIGEST] = sha256
    return record


def digest_map(revision: Revision) -> Object:
    """The ConfigMap that tells later pods the first one's digest; it lives as long as the record."""
    record = revision.objects["ControllerRevision"]["metadata"]
    owner = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "name": record["name"], "uid": record["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.digest_name(revision.name),
            "namespace": record["namespace"],
            "labels": record["labels"],
            "ownerReferences": [owner],
        },
        "immutable": True,
        "data": {"sha256": revision.digest},
    }


def deployment(resource: Object, revision: Revision) -> Object:
    """The Deployment of a revision, from the template pinned in its record (which exists before it)."""
    owner = resource["metadata"]["name"]
    if revision.record is None:
        raise ValueError(f"revision {revision.name} has no record to build a Deployment from")
    return child(
        resource,
        "apps/v1",
        "Deployment",
        revision.name,
        names.labels(owner, revision.variant, revision.revision),
        spec={
            "selector": {"matchLabels": names.selector(owner, revision.variant, revision.revision)},
            # Only a repair by hand ever rolls a revision's own pods; it may not cost capacity.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "revisionHistoryLimit": 0,
            "template": revision.record["template"],
        },
    )


def service(resource: Object, revision: Revision) -> Object:
    """The Service whose EndpointSlices say which of the revision's pods are ready."""
    owner = resource["metadata"]["name"]
    return child(
        resource,
        "v1",
        "Service",
        revision.name,
        names.labels(owner, revision.variant, revision.revision),
        spec={
            "type": "ClusterIP",
            "selector": names.selector(owner, revision.variant, revision.revision),
            "ports": [
                {"name": "http", "port": HTTP_SERVICE_PORT, "targetPort": "http", "protocol": "TCP"},
                {"name": "grpc", "port": names.GRPC_PORT, "targetPort": "grpc", "protocol": "TCP"},
                {"name": "metrics", "port": names.METRICS_PORT, "targetPort": "metrics", "protocol": "TCP"},
            ],
        },
    )


def autoscaler(
    resource: Object, revision: Revision, autoscaling: Autoscaling, target: int, metrics_api: MetricsMode
) -> Object:
    """The HPA: desired = ceil(in-flight / target). `metrics_api` says from whom it hears the requests in flight."""
    owner = resource["metadata"]["name"]
    return child(
        resource,
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        revision.name,
        names.labels(owner, revision.variant, revision.revision),
        spec={
            "scaleTargetRef": _target(revision),
            "minReplicas": autoscaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "metrics": [_metric(revision, target, metrics_api)],
            "behavior": _behavior(autoscaling),
        },
    )


def _metric(revision: Revision, target: int, metrics_api: MetricsMode) -> dict[str, Any]:
    """Of the Deployment, where the operator tells it: whatever the readiness of new pods. Of each pod, where an adapter
    does: Prometheus knows nothing else."""
    told = {"metric": {"name": names.METRIC}, "target": {"type": "AverageValue", "averageValue": str(target)}}
    if metrics_api is MetricsMode.PROMETHEUS_ADAPTER:
        return {"type": "Pods", "pods": told}
    return {"type": "Object", "object": {"describedObject": _target(revision), **told}}


def _target(revision: Revision) -> dict[str, str]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": revision.name}


def _behavior(autoscaling: Autoscaling) -> dict[str, Any]:
    """Up: at once and in one step. Down: after the user's stabilisation window, then in one step too."""
    at_once = [{"type": "Pods", "value": autoscaling.max_replicas, "periodSeconds": 15}]
    return {
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": at_once},
        "scaleDown": {
            "stabilizationWindowSeconds": autoscaling.scale_down_stabilization_seconds,
            "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
        },
    }
