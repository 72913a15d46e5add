"""Telling people: the status, written once and only if different, and Events on edges."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from inflight_operator.api import names
from inflight_operator.api.conditions import Type
from inflight_operator.api.world import Object
from inflight_operator.errors import TransientError
from inflight_operator.kube.client import ApiError, Kube
from inflight_operator.observe.store import Store

_log: Final = structlog.get_logger(__name__)
_MAX_MESSAGE: Final = 1000


class Reporter:
    """Writes status and Events of ModelDeployments."""

    def __init__(self, kube: Kube, store: Store) -> None:
        self._kube = kube
        self._store = store

    async def status(self, resource: Object, status: Mapping[str, Any]) -> bool:
        """Write `status` if it differs; true when written. A vanished resource is no error."""
        old = resource.get("status") or {}
        if status == old:
            return False
        metadata = resource["metadata"]
        body = {"status": _patch(old, status)}
        try:
            written = await self._kube.patch(names.KIND, metadata["namespace"], metadata["name"], "status", body)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        self._store.put(names.KIND, written)
        await self._edge(resource, old, status)
        return True

    async def event(self, resource: Object, reason: str, message: str, warning: bool = False) -> None:
        """One Event. It is a courtesy: when it can't be written, the work goes on."""
        about = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": resource["metadata"]}
        await write_event(self._kube, about, reason, message, warning=warning)

    async def _edge(self, resource: Object, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        """An Event when Ready turned, or turned for another reason."""
        before, after = _ready(old), _ready(new)
        if after is None or (before and (before["status"], before["reason"]) == (after["status"], after["reason"])):
            return
        failed = any(item["type"] == Type.STALLED and item["status"] == "True" for item in new["conditions"])
        reason = "Ready" if after["status"] == "True" else after["reason"]
        await self.event(resource, reason, after["message"], warning=failed)


async def write_event(kube: Kube, about: Object, reason: str, message: str, *, warning: bool = False) -> None:
    """One Event about any object."""
    metadata = about["metadata"]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {
        "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            **{key: metadata[key] for key in ("name", "namespace", "uid")},
        },
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "message": message[:_MAX_MESSAGE],
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    try:
        await kube.create("Event", metadata["namespace"], body)
    except TransientError as error:
        _log.warning("event not written", reason=reason, error=str(error))


def _patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A merge patch (RFC 7386) keeps what it does not name: what is gone has to be named as null, at any depth."""
    made: dict[str, Any] = dict.fromkeys(set(old) - set(new))
    for key, value in new.items():
        before = old.get(key)
        made[key] = _patch(before, value) if isinstance(value, Mapping) and isinstance(before, Mapping) else value
    return made


def _ready(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((item for item in status.get("conditions") or [] if item["type"] == Type.READY), None)
