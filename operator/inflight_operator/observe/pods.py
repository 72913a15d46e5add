"""Pods, read only when something is wrong: they are never watched."""

from __future__ import annotations

from inflight_operator.api import names
from inflight_operator.api.world import Failure, Revision
from inflight_operator.decide import failure
from inflight_operator.kube.client import Kube


async def why_unready(kube: Kube, namespace: str, owner: str, revision: Revision) -> Failure | None:
    """Ask the revision's pods what keeps them from being ready."""
    chosen = names.selector(owner, revision.variant, revision.revision)
    selector = ",".join(f"{key}={value}" for key, value in chosen.items())
    return failure.decide((await kube.list("Pod", namespace, selector)).items)
