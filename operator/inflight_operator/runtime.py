"""The operator as running tasks: watches, workers, the xDS server, the metrics API, health. Wiring, no decisions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

import kopf
import structlog

from inflight_operator import handlers, metrics_api
from inflight_operator.access import Access
from inflight_operator.api.names import Key
from inflight_operator.desired.pod import Installation
from inflight_operator.errors import TransientError
from inflight_operator.health import Health
from inflight_operator.kube.client import Kube
from inflight_operator.observe.listing import refresh
from inflight_operator.observe.store import KINDS, Store
from inflight_operator.reconcile import Reconciler
from inflight_operator.scaling_signal import Signal
from inflight_operator.settings import Settings
from inflight_operator.telemetry import RECONCILE_ERRORS, RECONCILE_SECONDS
from inflight_operator.workqueue import WorkQueue
from inflight_operator.xds import plane as xds

_log: Final = structlog.get_logger(__name__)

RESYNC_SECONDS: Final = 300.0
TICK_SECONDS: Final = 5.0
SCALING_TICK_SECONDS: Final = 2.0
"""Where the operator scales by itself, a burst waits no longer than this to be seen."""
START_RETRY_SECONDS: Final = 2.0


class StoppedError(Exception):
    """kopf was told to stop (it owns SIGTERM while it runs), so everything stops."""


class Operator:
    """Everything that runs in the operator's one process and one event loop."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self._settings = settings
        self._kube = kube
        named = settings.watch_namespaces
        # The routers are looked for in the operator's own namespace.
        self._watched = sorted({*named, settings.namespace}) if named else []
        self._store = Store()
        self._queue: WorkQueue[Key] = WorkQueue()
        self._plane = xds.ControlPlane(
            on_programmed=self._queue.add, clock=time.monotonic, cluster_domain=settings.cluster_domain
        )
        self._signal = Signal(self._plane.load.in_flight, time.monotonic)
        self._routers: dict[str, int] = {}
        self._first: set[Key] | None = None
        self._reconciler = Reconciler(
            store=self._store,
            kube=kube,
            plane=self._plane,
            signal=self._signal,
            installation=Installation(settings.model_server_image, settings.image_pull_secrets),
            router_host=settings.router_host,
            by_hpa=settings.metrics_api,
            clock=time.monotonic,
        )

    async def run(self) -> None:
        """Run until cancelled or until a part fails; a failed part ends the process, and the kubelet starts it anew."""
        async with contextlib.AsyncExitStack() as stack:
            await self._listen(stack)
            await self._read_everything()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._queue.run(self._work, self._settings.workers), name="workers")
                group.create_task(self._watch(), name="kopf")
                group.create_task(self._resync(), name="resync")
                group.create_task(self._tick(), name="tick")

    async def _listen(self, stack: contextlib.AsyncExitStack) -> None:
        """Health first, so that the kubelet sees a process that waits for its cluster as alive."""
        settings = self._settings
        watches = len(KINDS) * len(self._watched or [None])
        health = Health(watches, lambda: self._first is not None and not self._first, time.monotonic)
        stack.push_async_callback((await health.serve(settings.metrics_port)).cleanup)
        tls = xds.TlsFiles.in_directory(settings.tls_dir) if settings.tls_dir else None
        stack.push_async_callback((await xds.serve(self._plane, settings.xds_port, tls)).stop)
        if settings.metrics_api and settings.tls_dir:
            access = Access(self._kube)
            config = metrics_api.Config(tls_dir=settings.tls_dir, port=settings.metrics_api_port)
            api = await metrics_api.serve(config, self._signal.demand, access.trust, access.review)
            stack.push_async_callback(api.stop)

    async def _read_everything(self) -> None:
        """The first full world. Until every key of it has been reconciled once, no router is told anything."""
        while True:
            try:
                await refresh(self._kube, self._store, self._settings.watch_namespaces)
                break
            except TransientError as error:
                _log.warning(
                    "can't read the cluster yet; is the CRD installed, may the operator list?", error=str(error)
                )
                await asyncio.sleep(START_RETRY_SECONDS)
        self._first = set(self._store.known())
        self._open_when_whole()
        for key in self._first:
            self._queue.add(key)
        _log.info("read the cluster", model_deployments=len(self._first))

    async def _work(self, key: Key) -> float | None:
        with structlog.contextvars.bound_contextvars(namespace=key[0], name=key[1]), RECONCILE_SECONDS.time():
            try:
                return await self._reconciler.reconcile(key)
            except TransientError as error:
                RECONCILE_ERRORS.labels(kind="transient").inc()
                _log.warning("reconcile will be retried", error=str(error))
                raise
            except Exception:
                RECONCILE_ERRORS.labels(kind="bug").inc()
                _log.exception("reconcile failed: this is a bug")
                raise
            finally:
                if self._first:
                    self._first.discard(key)
                    self._open_when_whole()

    def _open_when_whole(self) -> None:
        if not self._first:
            self._plane.open()

    async def _watch(self) -> None:
        await kopf.operator(
            registry=handlers.registry(self._store, self._queue.add, self._see_router, self._settings.router_service),
            settings=handlers.settings(clusterwide=not self._watched),
            standalone=True,
            clusterwide=not self._watched,
            namespaces=self._watched,
        )
        raise StoppedError

    def _see_router(self, piece: dict[str, Any], deleted: bool) -> None:
        """How many routers there should be: a missing one's load is unknown, not zero."""
        metadata = piece["metadata"]
        if metadata["namespace"] != self._settings.namespace:
            return
        ready = [e for e in piece.get("endpoints") or [] if (e.get("conditions") or {}).get("ready")]
        self._routers[metadata["name"]] = 0 if deleted else len(ready)
        self._plane.load.expect(sum(self._routers.values()))

    async def _resync(self) -> None:
        """Now and then everything is read again: no event that got lost is lost for long."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            try:
                await refresh(self._kube, self._store, self._settings.watch_namespaces)
            except TransientError as error:
                _log.warning("could not read the cluster anew; the watches go on", error=str(error))
                continue
            for key in self._store.known():
                self._queue.add(key)

    async def _tick(self) -> None:
        """In-flight numbers change without any event: look whether a status has to say so, or replicas to follow."""
        while True:
            await asyncio.sleep(TICK_SECONDS if self._settings.metrics_api else SCALING_TICK_SECONDS)
            for key in self._reconciler.moved():
                self._queue.add(key)
