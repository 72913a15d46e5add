"""What the operator that leads does, from the moment that it leads: all of it made anew each time.

    certificates → servers → read everything → reconcile everything → the Service leads here → the APIService

Only then are the routers and the API server sent here: whoever led before, or nobody, is better than half a world.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

import structlog

from inflight_operator import metrics_api
from inflight_operator.access import Access
from inflight_operator.api.names import Key
from inflight_operator.desired.pod import Installation
from inflight_operator.errors import TransientError
from inflight_operator.insisting import insist
from inflight_operator.installation.certificates import Certificates
from inflight_operator.installation.lastgood import LastGood
from inflight_operator.installation.lease import Candidate
from inflight_operator.installation.presence import Presence
from inflight_operator.keyring import KeyRing
from inflight_operator.kube.client import Kube
from inflight_operator.observe import keys
from inflight_operator.observe.listing import refresh
from inflight_operator.observe.store import Store
from inflight_operator.reconcile import Reconciler
from inflight_operator.scaling_signal import Signal
from inflight_operator.settings import MetricsMode, Settings
from inflight_operator.tasks import apart, lasting
from inflight_operator.telemetry import RECONCILE_ERRORS, RECONCILE_SECONDS
from inflight_operator.workqueue import WorkQueue
from inflight_operator.xds import plane as xds
from inflight_operator.xds.model import Endpoint

_log: Final = structlog.get_logger(__name__)

TICK_SECONDS: Final = 5.0
SCALING_TICK_SECONDS: Final = 2.0
"""Where the operator scales by itself, a burst waits no longer than this to be seen."""
HAND_OVER_SECONDS: Final = 5.0
"""How long a leader that goes serves on while the next one takes over."""


class Leader:
    """One leadership. `run` ends by being cancelled; what it has handed out by then stays good."""

    def __init__(self, settings: Settings, kube: Kube, store: Store, lease: Candidate) -> None:
        self._settings = settings
        self._kube = kube
        self._store = store
        self._lease = lease
        self._queue: WorkQueue[Key] = WorkQueue()
        self._plane = xds.ControlPlane(
            on_programmed=self._queue.add, clock=time.monotonic, cluster_domain=settings.cluster_domain
        )
        self._signal = Signal(self._plane.load.in_flight, time.monotonic)
        self._keyring = KeyRing(partial(keys.read, kube), self._queue.add)
        self._first: set[Key] | None = None
        self._whole = asyncio.Event()
        self._metrics_api = MetricsMode.NONE
        self._presence = Presence(settings, kube)
        self._last_good = LastGood(kube, settings.namespace, store, self._plane.good)

    @property
    def whole(self) -> bool:
        """Every ModelDeployment has been reconciled once, so the routers get all of them."""
        return self._whole.is_set()

    def add(self, key: Key) -> None:
        """Something of `key` changed."""
        self._queue.add(key)

    def serve_from(self, routers: Mapping[str, Endpoint]) -> None:
        """These routers serve, by the name of their pod."""
        self._plane.serve_from(routers)

    async def run(self) -> None:
        """Act until cancelled. StandDownError; anything else that is raised is a bug."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                certificates = await self._certificates()
                other = await self._presence.adapter()
                self._metrics_api = MetricsMode.NONE if other else self._settings.metrics_api
                await self._listen(stack)
                self._reconciler = self._make_reconciler(other)
                await self._read_everything()
                await apart(self._act(certificates))
            finally:
                await self._hand_over()

    async def _act(self, certificates: Certificates | None) -> None:
        parts = {
            "workers": self._queue.run(self._work, self._settings.workers),
            "tick": self._tick(),
            "keys": self._keyring.run(),
            "endpoint": self._be_found(),
            "last known good": self._last_good.keep(),
        }
        if certificates:
            parts["certificates"] = self._renew(certificates)
        async with asyncio.TaskGroup() as group:
            for name, work in parts.items():
                group.create_task(lasting(name, work), name=name)

    async def _certificates(self) -> Certificates | None:
        """Make what is missing. None: they are somebody else's business."""
        settings = self._settings
        if settings.tls_dir is None or settings.certificate_seconds is None:
            return None
        made = Certificates(
            self._kube,
            settings.namespace,
            settings.tls_dir,
            hosts=settings.hosts,
            lifetime=settings.certificate_seconds,
        )
        await insist(made.refresh, "the installation's certificates can't be made yet")
        return made

    async def _listen(self, stack: contextlib.AsyncExitStack) -> None:
        settings = self._settings
        stack.push_async_callback((await xds.serve(self._plane, settings.xds_port, settings.tls_dir)).stop)
        if self._metrics_api is MetricsMode.BUILTIN and settings.tls_dir:
            access = Access(self._kube)
            fresh = min(60.0, (settings.certificate_seconds or 3600) / 30)
            config = metrics_api.Config(tls_dir=settings.tls_dir, port=settings.metrics_api_port, refresh_seconds=fresh)
            api = await metrics_api.serve(config, self._signal.demand, access.trust, access.review)
            stack.push_async_callback(api.stop)

    def _make_reconciler(self, other: str | None) -> Reconciler:
        settings = self._settings
        why = f"custom.metrics.k8s.io is served by {other}" if other else "metricsApi.mode: none"
        return Reconciler(
            store=self._store,
            kube=self._kube,
            plane=self._plane,
            signal=self._signal,
            installation=Installation(settings.model_server_image, settings.image_pull_secrets),
            router_host=settings.router_host,
            metrics_api=self._metrics_api,
            router_tls=settings.router_tls,
            keyring=self._keyring,
            access_closed=settings.access_closed,
            why_alone=why,
            clock=time.monotonic,
            wake=self._queue.add,
            host_domains=settings.host_domains,
            paces=self._plane.load.paces,
            by_endpoint=self._plane.load.in_flight_by_endpoint,
            idlest_first=settings.idlest_first,
        )

    async def _read_everything(self) -> None:
        """The first full world. Until every key of it has been reconciled once, no router is told anything."""
        everything = partial(refresh, self._kube, self._store, self._settings.watch_namespaces)
        await insist(everything, "can't read the cluster yet; is the CRD installed, may the operator list?")
        await self._reconciler.prime()
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
            self._whole.set()

    async def _tick(self) -> None:
        """In-flight numbers change without any event: look whether a status has to say so, or replicas to follow."""
        while True:
            alone = self._metrics_api is MetricsMode.NONE
            await asyncio.sleep(SCALING_TICK_SECONDS if alone else TICK_SECONDS)
            for key in self._reconciler.moved():
                self._queue.add(key)

    async def _be_found(self) -> None:
        await self._whole.wait()
        await self._presence.keep()

    async def _renew(self, certificates: Certificates) -> None:
        while True:
            wait = await insist(certificates.refresh, "certificates can't be looked after now")
            await asyncio.sleep(wait)

    async def _hand_over(self) -> None:
        """Nothing is written any more; serve on until the next leader does."""
        if not self._lease.leading:
            return
        await self._lease.give_back()
        with contextlib.suppress(TransientError, TimeoutError):
            async with asyncio.timeout(HAND_OVER_SECONDS):
                await self._presence.replaced()
