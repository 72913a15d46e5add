"""The Lease by which one of several operators leads: winning, keeping and giving it back, by decide/election.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from inflight_operator.api.world import Object
from inflight_operator.decide import election
from inflight_operator.decide.election import Lease, Sighting
from inflight_operator.errors import TransientError
from inflight_operator.installation import owner
from inflight_operator.kube.client import ApiError, Kube

_log: Final = structlog.get_logger(__name__)

NAME: Final = "inflight-operator"
_CALL_SECONDS: Final = 3.0
"""A call that takes longer is of no use to an election."""


class LostError(Exception):
    """Somebody else may lead by now: stop acting."""


class Candidate:
    """One operator that would lead. `clock` is monotonic seconds."""

    def __init__(self, kube: Kube, namespace: str, me: str, clock: Callable[[], float]) -> None:
        self._kube = kube
        self._namespace = namespace
        self._me = me
        self._clock = clock
        self._seen: Sighting | None = None
        self._renewed = 0.0
        self.leading = False

    async def win(self) -> None:
        """Wait until the Lease is ours."""
        while True:
            if await self._try("take", self._take):
                self.leading = True
                _log.info("leading")
                return
            await asyncio.sleep(election.look_again(self._seen, self._clock()))

    async def keep(self) -> None:
        """Renew until it is given back. LostError: it can't be renewed in time, or somebody else has it."""
        while True:
            await asyncio.sleep(min(election.RENEW_EVERY_SECONDS, max(0.0, self._left())))
            if not self.leading:
                return
            await self._try("renew", self._take, self._left())
            others = self._seen and self._seen.lease and self._seen.lease.holder != self._me
            if others or self._left() <= 0:
                self.leading = False
                raise LostError

    def _left(self) -> float:
        """Seconds until we have to stop, unless the Lease is renewed before."""
        return election.left(self._renewed, self._clock())

    async def give_back(self) -> None:
        """Whoever waits may take it at once. Nothing happens when it isn't ours."""
        if self.leading:
            self.leading = False
            await self._try("give back", lambda: self._write(""))

    async def _try(self, what: str, call: Callable[[], Any], seconds: float = _CALL_SECONDS) -> bool:
        seconds = min(seconds, _CALL_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                return bool(await call())
        except (TransientError, TimeoutError) as error:
            _log.warning(f"could not {what} the Lease {NAME}", error=str(error) or f"no answer in {seconds:.1f} s")
            return False

    async def _take(self) -> bool:
        began = self._clock()
        found = await self._kube.get("Lease", self._namespace, NAME)
        # As of now, not of when it was asked for: it may have been written while the answer was under way.
        self._seen = election.see(self._seen, _read(found), self._clock())
        if not election.may_take(self._seen, self._me, self._clock()):
            return False
        taken = await self._write(self._me, found)
        if taken:
            self._renewed = began
        return taken

    async def _write(self, holder: str, found: Object | None = None) -> bool:
        """Put `holder` into the Lease as it was found (read again if it wasn't); false when somebody was quicker."""
        found = found or await self._kube.get("Lease", self._namespace, NAME)
        try:
            if found is None:
                made = await self._create(holder)
            else:
                held = (found.get("spec") or {}).get("holderIdentity") or ""
                if not holder and held != self._me:
                    return False
                made = await self._kube.replace("Lease", {**found, "spec": _spec(holder, found.get("spec") or {})})
        except ApiError as error:
            if error.status == 409:
                return False
            raise
        self._seen = election.see(self._seen, _read(made), self._clock())
        return True

    async def _create(self, holder: str) -> Object:
        reference = await owner.of_namespaced(self._kube, self._namespace)
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": NAME, "namespace": self._namespace, "ownerReferences": [reference]},
            "spec": _spec(holder, {}),
        }
        return await self._kube.create("Lease", self._namespace, body)


def _read(found: Object | None) -> Lease | None:
    if found is None:
        return None
    spec = found.get("spec") or {}
    seconds = float(spec.get("leaseDurationSeconds") or election.LEASE_SECONDS)
    return Lease(spec.get("holderIdentity") or "", found["metadata"]["resourceVersion"], seconds)


def _spec(holder: str, before: Mapping[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    held = before.get("holderIdentity") or ""
    changed = bool(holder) and holder != held
    return {
        "holderIdentity": holder,
        "leaseDurationSeconds": election.LEASE_SECONDS,
        "renewTime": now,
        "acquireTime": now if changed else before.get("acquireTime") or now,
        "leaseTransitions": int(before.get("leaseTransitions") or 0) + changed,
    }
