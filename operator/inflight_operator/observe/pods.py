"""Pods, read only when something is wrong or to ask the first one for its digest: they are never watched."""

from __future__ import annotations

from inflight_operator.api import names
from inflight_operator.api.world import Failure, Object, Revision
from inflight_operator.decide import failure
from inflight_operator.kube.client import Kube


async def why_unready(kube: Kube, namespace: str, owner: str, revision: Revision) -> Failure | None:
    """Ask the revision's pods what keeps them from being ready."""
    return failure.decide(await _of(kube, namespace, owner, revision, cached=True))


async def first_ready_address(kube: Kube, namespace: str, owner: str, revision: Revision) -> str | None:
    """The revision's oldest ready pod's address, by the kubelet's word: EndpointSlices may be written by tenants."""
    ready = [pod for pod in await _of(kube, namespace, owner, revision) if _answers(pod)]
    oldest = min(ready, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]), default=None)
    return oldest["status"]["podIP"] if oldest else None


def _answers(pod: Object) -> bool:
    status = pod.get("status") or {}
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions") or [])
    own_address = status.get("podIP") and not pod["spec"].get("hostNetwork")
    return bool(ready and own_address and not pod["metadata"].get("deletionTimestamp"))


async def _of(kube: Kube, namespace: str, owner: str, revision: Revision, *, cached: bool = False) -> list[Object]:
    chosen = names.selector(owner, revision.variant, revision.revision)
    selector = ",".join(f"{key}={value}" for key, value in chosen.items())
    return (await kube.list("Pod", namespace, selector, cached=cached)).items
