"""The last known good configuration, kept in a ConfigMap: routers that start while no operator answers serve it."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from inflight_operator.api import names
from inflight_operator.api.world import Object
from inflight_operator.desired.revision import HTTP_SERVICE_PORT
from inflight_operator.errors import TransientError
from inflight_operator.installation import owner
from inflight_operator.kube.client import Kube
from inflight_operator.observe.store import Store
from inflight_operator.xds import lastgood
from inflight_operator.xds.lastgood import Good

_log: Final = structlog.get_logger(__name__)

NAME: Final = "inflight-last-good"
EVERY_SECONDS: Final = 5.0
MAX_BYTES: Final = 900 * 1024
"""A ConfigMap holds 1 MiB."""
_VERSION: Final = "serving.inflight.dev/version"


class LastGood:
    """Writes what `good` says (None: no router has accepted anything yet) whenever it differs."""

    def __init__(self, kube: Kube, namespace: str, store: Store, good: Callable[[], Good | None]) -> None:
        self._kube = kube
        self._namespace = namespace
        self._store = store
        self._good = good
        self._written: str | None = None

    async def keep(self) -> None:
        """For ever."""
        while True:
            try:
                await self.refresh()
            except TransientError as error:
                _log.warning("the last known good configuration can't be written now", error=str(error))
            await asyncio.sleep(EVERY_SECONDS)

    async def refresh(self) -> bool:
        """Write it if it differs; true when written. TransientError."""
        good = self._good()
        if good is None:
            return False
        services = lastgood.services(cluster_ips(self._store), HTTP_SERVICE_PORT, names.GRPC_PORT, good.clusters)
        version = good.version(services)
        if version == self._written or version == await self._known():
            self._written = version
            return False
        # In a thread: at a thousand ModelDeployments it takes a while.
        content = await asyncio.to_thread(lambda: _packed(lastgood.files(good, services)))
        self._written = version
        size = sum(map(len, content.values()))
        if size > MAX_BYTES:
            _log.error("too large for a ConfigMap: the last known good configuration stays as it was", bytes=size)
            return False
        await self._kube.apply(await self._manifest(version, content))
        _log.info("wrote the last known good configuration", bytes=size)
        return True

    async def _known(self) -> str | None:
        """The version that an earlier leader has written."""
        if self._written is not None:
            return None
        found = await self._kube.get("ConfigMap", self._namespace, NAME)
        version: str | None = ((found or {}).get("metadata", {}).get("annotations") or {}).get(_VERSION)
        return version

    async def _manifest(self, version: str, content: Mapping[str, bytes]) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": NAME,
                "namespace": self._namespace,
                "annotations": {_VERSION: version},
                "ownerReferences": [await owner.of_namespaced(self._kube, self._namespace)],
            },
            "binaryData": {name: base64.b64encode(value).decode() for name, value in content.items()},
        }


def cluster_ips(store: Store) -> dict[str, str]:
    """The addresses of all revisions' Services, by "namespace/name"."""
    found = {}
    for key in store.known():
        for service in store.all_of(key, "Service"):
            address = (service.get("spec") or {}).get("clusterIP")
            if address and address != "None" and names.REVISION in (service["metadata"].get("labels") or {}):
                found[f"{key[0]}/{service['metadata']['name']}"] = address
    return found


def _packed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Without a time stamp: the same content is the same bytes."""
    return {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in files.items()}
