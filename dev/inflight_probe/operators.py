"""The installation's operators: the pod that leads, as the Service's endpoint names it, and those that wait."""

from __future__ import annotations

from inflight_probe.kube import Kube, Object, condition

SELECTOR = "app.kubernetes.io/name=inflight,app.kubernetes.io/component=operator"
NAME = "inflight-operator"


async def leader(kube: Kube, namespace: str) -> Object:
    """The pod that leads. LookupError when none does."""
    found = await kube.get("EndpointSlice", namespace, NAME)
    name = found["endpoints"][0]["targetRef"]["name"] if found else ""
    pod = await kube.get("Pod", namespace, name) if name else None
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        raise LookupError(f"nobody leads in {namespace}: Service {NAME} leads to {name or 'no pod'}")
    return pod


async def all_ready(kube: Kube, namespace: str, count: int) -> bool:
    """Whether there are so many operators, all of them ready."""
    found = await kube.list_all("Pod", namespace, SELECTOR)
    return len(found) == count and all(condition(pod, "Ready").get("status") == "True" for pod in found)
