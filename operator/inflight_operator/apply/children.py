"""Server-side apply of a ModelDeployment's children, sent only when something differs, and their removal."""

from __future__ import annotations

from typing import Final

from inflight_operator.api.world import Object
from inflight_operator.apply import drift
from inflight_operator.errors import NameConflictError, RefusedError
from inflight_operator.kube.client import ApiError, Kube
from inflight_operator.observe.store import Store
from inflight_operator.observe.world import owned_by

_REFUSALS: Final = (400, 403, 413, 422)
"""The answers to what would be refused again: a bad field, a policy or quota, a body too large."""


class Children:
    """Writes children and keeps the store in step with the API server's replies."""

    def __init__(self, kube: Kube, store: Store) -> None:
        self._kube = kube
        self._store = store

    async def ensure(self, manifest: Object, live: Object | None, resource: Object) -> Object:
        """Make the cluster hold `manifest`; returns the object as it is then.

        NameConflictError: an object of that name exists and is somebody else's; it is left alone. RefusedError: the
        cluster does not take it as it is.
        """
        if live is not None and owned_by(live, resource) and drift.same(manifest, live):
            return live
        kind, metadata = manifest["kind"], manifest["metadata"]
        if live is None or not owned_by(live, resource):
            known = await self._kube.get(kind, metadata["namespace"], metadata["name"])
            if known is not None and not owned_by(known, resource):
                raise NameConflictError(kind, metadata["name"], _owner(known))
        try:
            applied = await self._kube.apply(manifest)
        except ApiError as error:
            if error.status in _REFUSALS:
                raise RefusedError(kind, metadata["name"], str(error)) from error
            raise
        self._store.put(kind, applied)
        return applied

    async def remove(self, kind: str, obj: Object) -> None:
        """Delete the object that was seen; its pods end gracefully by the garbage collector."""
        await self._kube.delete(kind, obj)
        self._store.drop(kind, obj)


def _owner(obj: Object) -> str:
    owners = obj["metadata"].get("ownerReferences") or []
    return ", ".join(f"{owner['kind']} {owner['name']}" for owner in owners) or "it has no owner"
