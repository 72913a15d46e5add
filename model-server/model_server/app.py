"""The life of the process: listen, load, serve, drain, end.

It owns the signals. uvicorn by itself closes its listener the moment SIGTERM comes, while routers still send requests
here; so SIGTERM first turns readiness off, and only after the drain delay does uvicorn learn of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvloop

from model_server import grpc_api, metrics_endpoint, startup, tracing
from model_server.cache import caching
from model_server.cache.caching import Caching
from model_server.decide.batch_plan import NO_BATCHING, Limits
from model_server.dispatcher import Dispatcher
from model_server.errors import LoadFailure, Reason
from model_server.executor import Executor, QuickExecutor
from model_server.first_digest import differs
from model_server.fronts import lead as fronts
from model_server.fronts.lead import Fronts
from model_server.lifecycle import Lifecycle, Served
from model_server.models.base import batchable
from model_server.rest import http_server
from model_server.rest.front import Front
from model_server.rest.infer import Inference
from model_server.settings import Settings
from model_server.startup import Started
from model_server.storage.fetching import Fetched
from model_server.telemetry import Telemetry

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from model_server.grpc_api.server import Server as GrpcServer

_log = structlog.get_logger()

_ALLOCATIONS = 20_000
"""Objects between two collections; Python's own 700 are made by ten requests."""
_SWITCH_INTERVAL_SECONDS = 0.001
_PATIENCE_SECONDS = 10
"""A prediction that is over its time by so much, on every slot, makes the server say that it isn't alive."""


class Process:
    """One server process with its one model."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], born: float) -> None:
        """`environ`: the settings as variables. `born`: when the process started, on time.monotonic's clock.

        Must be made on the running event loop.
        """
        self._settings = settings
        self._environ = environ
        self._born = born
        self._loop = asyncio.get_running_loop()
        self._telemetry = Telemetry()
        self._lifecycle = Lifecycle(settings.model.name)
        self._executor: Executor | None = None
        self._files: Fetched | None = None
        self._grpc: GrpcServer | None = None
        timeout = settings.timeout_milliseconds / 1000
        # The one exception to settings being the only reader of the environment: these are OpenTelemetry's variables.
        self._tracing = tracing.start(self._telemetry, os.environ, about(settings))
        self._inference = Inference(
            self._lifecycle, self._telemetry, timeout, settings.max_body_bytes, tracing=self._tracing
        )
        self._front = Front(self._inference, lambda: management(self._lifecycle))
        self._server = http_server.make(self._front, timeout)
        self._fronts: Fronts | None = None
        self._stopping = asyncio.Event()
        self._impatient = False
        self._failure: LoadFailure | None = None

    async def serve(self) -> None:
        """Until a signal ends it. LoadFailure when the model can't be served."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, number)
        settings = self._settings
        sock = listen(settings.host, settings.port)
        metrics_sock = listen(settings.host, settings.metrics_port)
        metrics = await metrics_endpoint.serve(self._telemetry, metrics_sock)
        serving = asyncio.create_task(self._server.serve(sockets=[sock]))
        _log.info("listening", port=sock.getsockname()[1], metrics_port=metrics_sock.getsockname()[1])
        try:
            with _directory(settings.model_dir) as model_dir:
                await self._until_stopped(model_dir)
                await self._drain()
            if self._failure is not None:
                raise self._failure
        finally:
            self._server.should_exit = True
            await asyncio.gather(serving, self._stop_grpc(), self._stop_fronts())
            if self._executor is not None:
                self._executor.stop()
            if self._lifecycle.served is not None and isinstance(self._lifecycle.served.dispatcher, Caching):
                await self._lifecycle.served.dispatcher.close()
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.stop)
            metrics.close()

    async def _until_stopped(self, model_dir: Path) -> None:
        """Load, be ready, and return when a stop is asked for, be it while loading."""
        loading = asyncio.create_task(startup.start(self._settings, model_dir, self._telemetry))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            loading.cancel()
            await asyncio.wait((loading,))
        else:
            differing = asyncio.create_task(differs(self._settings.model, loading.result().fetched.digest))
            self._lifecycle.loaded(self._served(loading.result()))
            collect_garbage_rarely()
            seconds = time.monotonic() - self._born
            self._telemetry.cold_start.labels("ready").set(seconds)
            _log.info("ready", seconds=round(seconds, 3))
            self._grpc = await grpc_api.start(self._inference, self._settings.host, self._settings.grpc_port)
            await asyncio.wait((differing, stopping), return_when=asyncio.FIRST_COMPLETED)
            if differing.done():
                self._failure = differing.result()
                self._unready()
                return
            differing.cancel()
        await stopping

    def _served(self, started: Started) -> Served:
        """The model with the queue in front of it."""
        settings, metadata = self._settings, started.metadata
        self._executor = started.executor
        self._files = started.fetched
        limits = NO_BATCHING
        if batchable(metadata):
            limits = Limits(settings.batch_max_rows, settings.batch_max_delay_milliseconds / 1000)
        timeout = settings.timeout_milliseconds / 1000
        dispatcher = Dispatcher(started.executor, settings.max_queue, self._telemetry, limits, timeout)
        digest = started.fetched.digest
        queue = caching.over(dispatcher, settings, digest, self._telemetry)
        if queue is dispatcher and limits.max_rows == 1:  # what one process gathers or keeps, another couldn't use
            self._share_out(started, dispatcher)
        hangs = partial(dispatcher.hangs, timeout + _PATIENCE_SECONDS)
        return Served(metadata, queue, digest, version(settings, digest), hangs)

    def _share_out(self, started: Started, dispatcher: Dispatcher) -> None:
        """More processes may serve connections, should a quick model make it worth their while."""
        limits = fronts.limits(self._settings)
        if limits.most < 1 or not limits.busy or not isinstance(started.executor, QuickExecutor):
            return
        parts = fronts.Parts(
            settings=self._settings,
            environ=self._environ,
            model=started.fetched.path,
            digest=started.fetched.digest,
            executor=started.executor,
            dispatcher=dispatcher,
            server=self._server,
            front=self._front,
            telemetry=self._telemetry,
        )
        self._fronts = Fronts(parts, limits)
        if self._lifecycle.draining:
            self._fronts.drain()

    async def _stop_fronts(self) -> None:
        if self._fronts is not None:
            await self._fronts.stop(0 if self._server.force_exit else self._inference.timeout_seconds + 2)

    async def _stop_grpc(self) -> None:
        if self._grpc is not None:
            await self._grpc.stop(0 if self._server.force_exit else self._inference.timeout_seconds + 1)

    async def _drain(self) -> None:
        """Readiness is off already; keep answering until every router knows. Nothing to wait for if never ready."""
        if self._lifecycle.served is None or self._impatient:
            return
        _log.info("draining", delay_seconds=self._settings.drain_delay_seconds)
        await asyncio.sleep(self._settings.drain_delay_seconds)

    def _on_signal(self, number: int) -> None:
        """SIGTERM drains; SIGINT (somebody at a keyboard) skips the delay; a second signal ends everything now."""
        if self._stopping.is_set():
            self._server.force_exit = True
            if self._fronts is not None:
                self._fronts.hurry()
        self._impatient = number == signal.SIGINT
        self._unready()
        self._stopping.set()

    def _unready(self) -> None:
        """Clients should go elsewhere, whichever process they are with."""
        self._lifecycle.drain()
        if self._fronts is not None:
            self._fronts.drain()


def about(settings: Settings) -> dict[str, str]:
    """What every span says."""
    return {
        "inflight.model": settings.model.name,
        "inflight.variant": settings.variant,
        "inflight.revision": settings.revision,
    }


def version(settings: Settings, digest: str) -> str:
    """What clients may name as the model's version."""
    return settings.revision or digest[:8]


def management(lifecycle: Lifecycle) -> ASGIApp:
    """The application for everything but predictions and probes."""
    from model_server.rest import management as application  # noqa: PLC0415 - it imports FastAPI

    return application.build(lifecycle)


def share_the_interpreter() -> None:
    """A prediction in pure Python holds the interpreter lock; the event loop, which refuses requests and answers
    probes, should get it back sooner than after the usual 5 ms.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)


def collect_garbage_rarely() -> None:
    """What is there once the model is loaded stays, and requests leave no cycles behind.

    So collections need not look at the former, nor come every few requests: they are felt in the tail.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, 20, 20)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; an empty host means every address, IPv6 and IPv4. LoadFailure(InvalidSettings) if taken."""
    create = partial(socket.create_server, backlog=http_server.BACKLOG)
    try:
        if host:
            return create((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        if socket.has_dualstack_ipv6():
            return create(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return create(("0.0.0.0", port))  # noqa: S104  # nosec B104 # a pod serves its network
    except OSError as error:
        raise LoadFailure(
            Reason.INVALID_SETTINGS, f"can't listen on port {port} of {host or 'any address'}: {error.strerror}"
        ) from error


@contextlib.contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    temporary = Path(tempfile.mkdtemp(prefix="inflight-model-"))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def run(settings: Settings, environ: Mapping[str, str], born: float) -> None:
    """Serve until a signal ends it. LoadFailure when the model can't be served."""

    share_the_interpreter()

    async def main() -> None:
        await Process(settings, environ, born).serve()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    finally:
        # The loop has gone, and its handlers with it: one more signal must not turn a clean end into a killed one.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
