"""The operator as running tasks: what it sees of the cluster, whether it leads, its health. Wiring, no decisions.

Each of several operators watches everything all the time; the one that holds the Lease acts (leader.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

import kopf
import structlog

from inflight_operator import handlers, telemetry
from inflight_operator.api.names import Key
from inflight_operator.errors import TransientError
from inflight_operator.health import Health
from inflight_operator.installation.lease import Candidate, LostError
from inflight_operator.installation.presence import StandDownError
from inflight_operator.kube.client import Kube
from inflight_operator.leader import Leader
from inflight_operator.observe import routers
from inflight_operator.observe.listing import refresh
from inflight_operator.observe.routers import Routers
from inflight_operator.observe.store import KINDS, Store
from inflight_operator.settings import Settings
from inflight_operator.tasks import apart, go_on, lasting

_log: Final = structlog.get_logger(__name__)

RESYNC_SECONDS: Final = 300.0
START_RETRY_SECONDS: Final = 2.0


class StoppedError(Exception):
    """Told to stop: everything ends."""


class Operator:
    """Everything that runs in the operator's one process and one event loop."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self.watching = asyncio.Event()
        """kopf has started, and has taken SIGTERM for itself."""
        self._stop = asyncio.Event()
        self._settings = settings
        self._kube = kube
        named = settings.watch_namespaces
        # The routers are looked for in the operator's own namespace.
        self._watched = sorted({*named, settings.namespace}) if named else []
        self._store = Store()
        self._lease = Candidate(kube, settings.namespace, settings.pod_name, time.monotonic)
        self._routers: dict[str, Routers] = {}
        self._read = False
        self._leader: Leader | None = None

    def stop(self) -> None:
        """Hand over to another operator, and end `run` with StoppedError."""
        self._stop.set()

    async def run(self) -> None:
        """Run until stopped or until a part fails; a failed part ends the process, and the kubelet starts it anew."""
        async with contextlib.AsyncExitStack() as stack:
            # First, so that the kubelet sees a process that waits for its cluster as alive.
            watches = len(KINDS) * len(self._watched or [None])
            health = Health(watches, self._ready, time.monotonic)
            stack.enter_context(telemetry.exposing(self._store.conditions))
            stack.push_async_callback((await health.serve(self._settings.metrics_port)).cleanup)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch(), name="kopf")
                group.create_task(lasting("resync", self._resync()), name="resync")
                leader = group.create_task(lasting("leader", self._lead()), name="leader")
                group.create_task(self._end(leader), name="end")

    async def _end(self, leader: asyncio.Task[None]) -> None:
        """The leader first, in peace: kopf's end cancels every task that was made since its start."""
        await self._stop.wait()
        leader.cancel()
        await asyncio.wait([leader])
        raise StoppedError

    def _ready(self) -> bool:
        """Able to take over, or in charge of the whole world."""
        return self._leader.whole if self._leader else self._read

    async def _lead(self) -> None:
        """Wait for the Lease and act while it is ours, again and again."""
        while True:
            go_on()
            await self._lease.win()
            leader = Leader(self._settings, self._kube, self._store, self._lease)
            leader.serve_from(self._serving())
            self._leader = leader
            telemetry.LEADING.set(1)
            try:
                await apart(self._act(leader))
            except* LostError:
                _log.warning("the Lease is lost: this operator no longer acts")
            except* StandDownError as why:
                _log.warning("standing for leader anew", why=str(why.exceptions[0]))
            finally:
                telemetry.step_down()
                self._leader = None

    async def _act(self, leader: Leader) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lease.keep(), name="lease")
            group.create_task(lasting("acting", leader.run()), name="acting")

    def _changed(self, key: Key) -> None:
        if self._leader:
            self._leader.add(key)

    async def _watch(self) -> None:
        await kopf.operator(
            registry=handlers.registry(self._store, self._changed, self._see_router, self._settings.router_service),
            settings=handlers.settings(clusterwide=not self._watched),
            standalone=True,
            clusterwide=not self._watched,
            namespaces=self._watched,
            ready_flag=self.watching,
        )
        raise StoppedError

    def _see_router(self, piece: dict[str, Any], deleted: bool) -> None:
        """Which routers there should be: a missing one's load is unknown, not zero."""
        metadata = piece["metadata"]
        if metadata["namespace"] != self._settings.namespace:
            return
        self._routers[metadata["name"]] = {} if deleted else routers.ready(piece)
        if self._leader:
            self._leader.serve_from(self._serving())

    def _serving(self) -> Routers:
        """The ready routers of all slices."""
        return {name: endpoint for found in self._routers.values() for name, endpoint in found.items()}

    async def _resync(self) -> None:
        """Read everything, now and then again: no event that got lost is lost for long."""
        while True:
            try:
                await refresh(self._kube, self._store, self._settings.watch_namespaces)
                self._routers = await routers.listed(
                    self._kube, self._settings.namespace, self._settings.router_service
                )
            except TransientError as error:
                _log.warning(
                    "can't read the cluster now; is the CRD installed, may the operator list?", error=str(error)
                )
                await asyncio.sleep(START_RETRY_SECONDS if not self._read else RESYNC_SECONDS)
                continue
            self._read = True
            if self._leader:
                self._leader.serve_from(self._serving())
            for key in self._store.known():
                self._changed(key)
            await asyncio.sleep(RESYNC_SECONDS)
