"""Full lists into the store: at start, so that the first world is whole, and now and then, so that no loss lasts."""

from __future__ import annotations

from collections.abc import Sequence

from inflight_operator.api import names
from inflight_operator.kube.client import Kube
from inflight_operator.observe.store import CHILD_KINDS, Store


async def refresh(kube: Kube, store: Store, namespaces: Sequence[str]) -> None:
    """Read every ModelDeployment and every child; `namespaces` empty: of the whole cluster."""
    for namespace in namespaces or (None,):
        for kind in (names.KIND, *CHILD_KINDS):
            selector = "" if kind == names.KIND else names.MODEL_DEPLOYMENT
            listing = await kube.list(kind, namespace, selector)
            store.replace(kind, listing.items, listing.version, namespace)
