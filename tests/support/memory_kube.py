"""An API server in memory: optimistic locking and conflicts as the real one, and faults on demand."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Mapping
from typing import Any

from inflight_operator.errors import TransientError
from inflight_operator.kube.client import ApiError

Object = dict[str, Any]
SERVICE = {"metadata": {"name": "inflight-operator", "namespace": "system", "uid": "service-uid"}}


class MemoryKube:
    """Objects by (kind, namespace, name), shared by those who are given the same `objects`."""

    def __init__(self, objects: dict[tuple[str, str | None, str], Object] | None = None) -> None:
        self.objects = {("Service", "system", "inflight-operator"): SERVICE} if objects is None else objects
        self.down = False
        self.slow = 0.0
        self.writes: list[tuple[str, str, str]] = []
        self._versions = itertools.count(1)

    def beside(self) -> MemoryKube:
        """Another client of the same API server, with faults of its own."""
        other = MemoryKube(self.objects)
        other._versions = self._versions
        return other

    async def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        await self._reach()
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    async def list(self, kind: str, _namespace: str | None = None, _selector: str = "", **_how: bool) -> Any:
        raise TransientError(f"API server: {kind} can't be listed")

    async def create(self, kind: str, namespace: str, body: Mapping[str, Any]) -> Object:
        await self._reach()
        key = (kind, namespace, body["metadata"]["name"])
        if key in self.objects:
            raise ApiError(409, "AlreadyExists", f"{kind} exists")
        return self._put("create", key, body)

    async def replace(self, kind: str, obj: Object) -> Object:
        await self._reach()
        key = (kind, obj["metadata"].get("namespace"), obj["metadata"]["name"])
        known = self.objects.get(key)
        if known is None:
            raise ApiError(404, "NotFound", f"{kind} is gone")
        if known["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", f"{kind} was changed")
        return self._put("replace", key, obj)

    async def apply(self, manifest: Object) -> Object:
        await self._reach()
        metadata = manifest["metadata"]
        return self._put("apply", (manifest["kind"], metadata.get("namespace"), metadata["name"]), manifest)

    def _put(self, verb: str, key: tuple[str, str | None, str], body: Mapping[str, Any]) -> Object:
        stored = copy.deepcopy(dict(body))
        stored["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[key] = stored
        self.writes.append((verb, key[0], key[2]))
        return copy.deepcopy(stored)

    async def _reach(self) -> None:
        if self.slow:
            await asyncio.sleep(self.slow)
        if self.down:
            raise TransientError("API server: connection refused")
