"""How a revision scales, seen from outside: the metric its HPA reads, what the HPA wants, what is ready."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inflight_probe.kube import ApiError, Kube

OWNER = "serving.inflight.dev/modeldeployment"
VARIANT = "serving.inflight.dev/variant"
_METRIC = "inflight_requests"
_SUFFIXES: Mapping[str, float] = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True)
class Scale:
    """`metric` is in-flight requests, NaN while there is no reading; the rest are pods."""

    metric: float
    desired: int
    replicas: int
    ready: int


def quantity(text: str) -> float:
    """A Kubernetes decimal quantity ("2700m", "3") as a number. ValueError when it is none."""
    suffix = text[-1:] if text[-1:] in _SUFFIXES else ""
    return float(text.removesuffix(suffix)) * _SUFFIXES[suffix]


async def revision_of(kube: Kube, namespace: str, name: str) -> str:
    """The name of a one-variant ModelDeployment's only HPA. LookupError when there is not exactly one."""
    found = await kube.list_all("HorizontalPodAutoscaler", namespace, f"{OWNER}={name}")
    if len(found) != 1:
        raise LookupError(f"{namespace}/{name} has {len(found)} HPAs, expected one")
    revision: str = found[0]["metadata"]["name"]
    return revision


async def scale(kube: Kube, namespace: str, revision: str) -> Scale:
    """One look at a revision."""
    hpa = await kube.get("HorizontalPodAutoscaler", namespace, revision) or {}
    deployment = await kube.get("Deployment", namespace, revision) or {}
    status = deployment.get("status", {})
    return Scale(
        await metric(kube, namespace, revision),
        hpa.get("status", {}).get("desiredReplicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
    )


async def metric(kube: Kube, namespace: str, revision: str) -> float:
    """What the custom metrics API says now, as the HPA would read it; NaN when it has no reading."""
    where = f"/apis/custom.metrics.k8s.io/v1beta2/namespaces/{namespace}/deployments.apps/{revision}/{_METRIC}"
    try:
        answer: dict[str, Any] = await kube.request("GET", where)
    except ApiError as error:
        if error.status in (404, 503):
            return math.nan
        raise
    return quantity(answer["items"][0]["value"])
