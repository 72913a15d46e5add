"""Another process's side; its argument is the file descriptor of its end of the channel.

It listens on nothing and takes no signals: connections and orders come from the first process, and it ends with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import structlog
import uvloop

from model_server import app, logs, settings, startup, tracing
from model_server.decide.batch_plan import NO_BATCHING
from model_server.dispatcher import Dispatcher
from model_server.executor import QuickExecutor, ThreadExecutor
from model_server.fronts.channel import Channel, Message
from model_server.fronts.lead import TICK_SECONDS, adopt
from model_server.lifecycle import Lifecycle, Served
from model_server.rest import http_server
from model_server.rest.front import Front
from model_server.rest.infer import Inference
from model_server.settings import Settings
from model_server.telemetry import Telemetry

_log = structlog.get_logger()


class Helper:
    """One such process; must be made on the running event loop."""

    def __init__(self, given: Settings, end: socket.socket) -> None:
        self._settings = given
        self._telemetry = Telemetry()
        self._lifecycle = Lifecycle(given.model.name)
        about = app.about(given)
        self._tracing = tracing.start(self._telemetry, os.environ, about)
        timeout = given.timeout_milliseconds / 1000
        inference = Inference(self._lifecycle, self._telemetry, timeout, given.max_body_bytes, tracing=self._tracing)
        self._front = Front(inference, lambda: app.management(self._lifecycle))
        self._server = http_server.make(self._front, timeout)
        self._executor: QuickExecutor | None = None
        self._dispatcher: Dispatcher | None = None
        self._loading: asyncio.Task[None] | None = None
        self._leaving = False
        self._received = 0
        self._to_give = 0
        self._returned = 0
        # The first process has gone, perhaps killed: nobody accepts connections any more, or wants these counts.
        self._channel = Channel(end, self._told, lambda: os._exit(0))

    async def serve(self) -> None:
        """Until the first process says otherwise."""
        serving = asyncio.create_task(self._server.serve(sockets=[]))
        then, computed = time.monotonic(), time.thread_time()
        while not self._server.should_exit:
            await asyncio.sleep(TICK_SECONDS)
            now, total = time.monotonic(), time.thread_time()
            self._report((total - computed) / (now - then))
            then, computed = now, total
            if self._leaving:
                self._server.give_idle()
                if not self._server.connections and not self._telemetry.in_flight():
                    self._server.should_exit = True
        await serving
        self._report(0.0)
        if self._executor is not None:
            self._executor.stop()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.stop)
        self._channel.close()

    def _report(self, busy: float) -> None:
        executor = self._executor
        counted = (executor.quick, executor.slow) if executor is not None else (0, 0)
        self._channel.send(
            {
                "state": self._telemetry.state(),
                "connections": self._server.connections,
                "received": self._received,
                "returned": self._returned,
                "busy": busy,
                "quick": counted[0],
                "slow": counted[1],
            }
        )
        if self._dispatcher is not None and self._dispatcher.hangs(self._settings.timeout_milliseconds / 1000 + 10):
            _log.error("every slot of this front process has been computing for far longer than any request may")
            os._exit(1)

    def _told(self, message: Message, fd: int | None) -> None:
        """One order of the first process."""
        match message["do"]:
            case "load":
                loading = self._load(Path(message["model"]), message["digest"], dict(message["slowness"]))
                self._loading = asyncio.create_task(loading)
            case "serve":
                self._received += 1
                if fd is None:  # out of file descriptors, and the kernel has closed it
                    _log.error("a connection was lost: this process can't open any more")
                else:
                    adopt(self._server, fd)
            case "resize":
                if self._dispatcher is not None:
                    self._dispatcher.resize(message["slots"], message["max_queue"])
            case "give":
                self._give_back(message["connections"])
            case "leave":
                self._leaving = True
                self._give_back(sys.maxsize)
            case "drain":
                self._lifecycle.drain()
                self._front.overfull = False
            case "stop":
                self._lifecycle.drain()
                self._server.should_exit = True

    def _give_back(self, connections: int) -> None:
        self._to_give = connections
        self._front.giving, self._front.overfull = self, connections > 0
        self._server.give_idle()

    def wanted(self) -> bool:
        """See rest.front.Giving."""
        return self._to_give > 0

    def give(self, fd: int) -> bool:
        """Back to the first process. See rest.front.Giving."""
        given = self._channel.send({}, fd)
        self._to_give -= given
        self._returned += given
        self._front.overfull = self._to_give > 0
        return given

    async def _load(self, path: Path, digest: str, slowness: Mapping[int, float]) -> None:
        given = self._settings
        try:
            loaded = await startup.loaded(given, path, self._telemetry)
            threads = ThreadExecutor(loaded.predict, given.concurrency)
            self._executor = QuickExecutor(loaded.predict, threads, slowness)
        except Exception as error:
            _log.error("another front process can't load the model", exc_info=error)
            os._exit(1)
        timeout = given.timeout_milliseconds / 1000
        self._dispatcher = Dispatcher(self._executor, 0, self._telemetry, NO_BATCHING, timeout)
        self._lifecycle.loaded(Served(loaded.metadata, self._dispatcher, digest, app.version(given, digest)))
        app.collect_garbage_rarely()
        self._channel.send({"is": "ready"})


def main() -> None:
    """See the module."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # they are for the first process, which tells this one
    given = settings.read(os.environ)
    logs.configure(given.log_level, model=given.model.name, variant=given.variant, revision=given.revision)
    app.share_the_interpreter()
    end = socket.socket(fileno=int(sys.argv[1]))

    async def run() -> None:
        await Helper(given, end).serve()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
