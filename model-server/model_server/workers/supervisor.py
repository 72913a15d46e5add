"""Provides workers: keeps a template that forks them, or has each load the model for itself.

A template that ends is replaced after pauses that double; the workers that it forked live on. Everything happens on the
event loop, which never waits for a process.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from model_server import logs
from model_server.errors import LoadFailure, Reason
from model_server.models.base import Metadata
from model_server.models.tensors import DATATYPES, TensorSpec
from model_server.workers import process, wire
from model_server.workers.backoff import Backoff
from model_server.workers.process import Child, NotOurChildError
from model_server.workers.template import PACKET_BYTES
from model_server.workers.wire import WireError
from model_server.workers.worker import Recycling

_log = structlog.get_logger()

_SINGLE_THREADED: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A process with threads can't be forked; the workers have as many as they should."""
_STOP_SECONDS: Final = 2.0


class NoWorkerError(Exception):
    """There is no new worker for now; the text says why."""


@dataclass(frozen=True)
class ModelFiles:
    """What to load, as `models.loading.load` takes it."""

    path: Path
    format: str
    entrypoint: str
    threads: int
    """Of one prediction."""
    max_bytes: int
    device: str


@dataclass(frozen=True)
class _Loaded:
    metadata: Metadata
    warm_up: str
    forks: bool


class Template:
    """A process that loads the model, and then forks workers, or becomes one."""

    def __init__(self, files: ModelFiles, recycling: Recycling, ended: Callable[[Template, str], None]) -> None:
        """`ended(self, how)` is called when it has ended, unless it has become a worker."""
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self.loaded: asyncio.Future[_Loaded] = self._loop.create_future()
        """LoadFailure says why it isn't."""
        self._orders: deque[asyncio.Future[Child]] = deque()
        self.born = time.monotonic()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            environ = {**os.environ, **_SINGLE_THREADED}
            self._child = process.start("model_server.workers.template", [str(os.getpid())], theirs, environ)
        order = {**asdict(files), "path": str(files.path), **asdict(recycling), "logs": logs.configured()}
        self._control.send(wire.header(order))
        self._control.setblocking(False)
        self._loop.add_reader(self._control, self._readable)
        self._loop.add_reader(self._child, self._gone)

    async def fork(self, descriptors: Sequence[int]) -> Child:
        """A new worker, which has copies of the descriptors. NoWorkerError."""
        order: asyncio.Future[Child] = self._loop.create_future()
        self._orders.append(order)
        self._send(descriptors, fork=True)
        return await order

    def become_worker(self, descriptors: Sequence[int]) -> Child:
        """The process itself as a worker: it is the caller's now. NoWorkerError."""
        self._send(descriptors, fork=False)
        self._hang_up()
        self._loop.remove_reader(self._child)
        return self._child

    def close(self) -> None:
        """End it."""
        self._child.kill()
        self._hang_up()
        self._give_up("closed")

    def wait(self) -> None:
        """Until it has ended, which a closed one does at once."""
        self._loop.remove_reader(self._child)
        self._child.ended(_STOP_SECONDS)
        self._child.close()

    def _send(self, descriptors: Sequence[int], *, fork: bool) -> None:
        try:
            socket.send_fds(self._control, [wire.header({"fork": fork})], list(descriptors))
        except OSError as error:
            raise NoWorkerError(f"the process that has the model can't be reached: {error}") from None

    def _readable(self) -> None:
        try:
            packet = self._control.recv(PACKET_BYTES)
            if packet:
                self._told(wire.parsed(packet))
                return
        except BlockingIOError:
            return
        except (OSError, WireError, KeyError, IndexError, TypeError, ValueError) as error:
            _log.error("the process that has the model sent nonsense", error=repr(error)[:300])
        self._hang_up()
        self._child.kill()  # how it ended is told as soon as it has

    def _told(self, message: dict[str, Any]) -> None:
        if not self.loaded.done():
            if "failed" in message:
                reason, text = message["failed"]
                self._fail(LoadFailure(Reason(reason), str(text)))
            else:
                loaded = _Loaded(_metadata(message["loaded"]), str(message["warm_up"]), message["forks"] is True)
                self.loaded.set_result(loaded)
            return
        order = self._orders.popleft()
        if "born" not in message:
            order.set_exception(NoWorkerError(f"forking failed: {message['refused']}"))
            return
        try:
            child = Child(int(message["born"]))
        except NotOurChildError as error:
            order.set_exception(NoWorkerError(str(error)))
            return
        if order.done():  # nobody waits any more
            child.kill()
            child.ended(_STOP_SECONDS)
        else:
            order.set_result(child)

    def _gone(self) -> None:
        if (how := self._child.ended()) is None:
            return
        self._loop.remove_reader(self._child)
        self._child.close()
        self._loop.call_later(process.SWEEP_SECONDS, process.reap_orphans)
        self._hang_up()
        self._give_up(how)
        self._ended(self, how)

    def _give_up(self, how: str) -> None:
        if not self.loaded.done():
            text = f"the process that loads the model ended ({how}); what it has written to the log may say why"
            self._fail(LoadFailure(Reason.LOAD_FAILED, text))
        for order in self._orders:
            if not order.done():
                order.set_exception(NoWorkerError(f"the process that workers are forked from ended ({how})"))
        self._orders.clear()

    def _fail(self, failure: LoadFailure) -> None:
        self.loaded.set_exception(failure)
        self.loaded.exception()  # seen: perhaps nobody waits any more

    def _hang_up(self) -> None:
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
            self._control.close()


class Supervisor:
    """The templates of a pool."""

    def __init__(self, files: ModelFiles, recycling: Recycling) -> None:
        self._files = files
        self._recycling = recycling
        self._templates: set[Template] = set()
        """All that have not become workers."""
        self._current: asyncio.Task[Template] | None = None
        """Of which workers are forked; a new one is under way as soon as it is lost."""
        self._spare: Template | None = None
        """Where each worker loads the model for itself: the first that did."""
        self._backoff = Backoff()
        self.forks = True
        """Whether workers share the template's memory."""

    async def start(self) -> Metadata:
        """Load the model. LoadFailure says why it can't be."""
        template = self._new()
        loaded = await template.loaded
        self.forks = loaded.forks
        if self.forks:
            self._current = asyncio.create_task(_at_once(template))
        else:
            self._spare = template
            _log.info("the model has threads once it is loaded: every worker loads it for itself")
        _log.info("model is warm", forked=self.forks, threads=self._files.threads, warm_up=loaded.warm_up)
        return loaded.metadata

    async def worker(self, descriptors: Sequence[int]) -> Child:
        """A new worker that has copies of `descriptors` (see template). NoWorkerError, LoadFailure."""
        if self._current is not None:
            template = await asyncio.shield(self._current)
            return await template.fork(descriptors)
        template, self._spare = self._spare or self._new(), None
        try:
            await template.loaded
            child = template.become_worker(descriptors)
        except BaseException:
            template.close()
            raise
        self._templates.discard(template)
        return child

    def stop(self) -> None:
        """End everything."""
        if self._current is not None:
            self._current.cancel()
        for template in self._templates:
            template.close()
        for template in self._templates:
            template.wait()
        self._templates.clear()

    def _new(self) -> Template:
        template = Template(self._files, self._recycling, self._lost)
        self._templates.add(template)
        return template

    def _lost(self, template: Template, how: str) -> None:
        self._templates.discard(template)
        current = self._current
        if current is None or not current.done() or current.cancelled() or current.result() is not template:
            return
        pause = self._backoff.lost(time.monotonic() - template.born, busy=False)
        _log.error("the process that workers are forked from ended: starting another", how=how, pause_seconds=pause)
        self._current = asyncio.create_task(self._another(pause))

    async def _another(self, pause: float) -> Template:
        while True:
            await asyncio.sleep(pause)
            template = self._new()
            try:
                await template.loaded
                return template
            except LoadFailure as failure:
                pause = self._backoff.lost(0, busy=False)
                _log.error("the model can't be loaded again", error=failure.message, pause_seconds=pause)
                template.close()


async def _at_once(template: Template) -> Template:
    return template


def _metadata(loaded: dict[str, Any]) -> Metadata:
    """What a template told. It runs the model's code, so it may be anything: ValueError, TypeError, KeyError."""

    def spec(name: Any, datatype: Any, shape: Any) -> TensorSpec:
        if datatype not in DATATYPES or not all(type(size) is int for size in shape):
            raise ValueError("no such tensor")
        return TensorSpec(str(name), str(datatype), tuple(shape))

    inputs = tuple(spec(*each) for each in loaded["inputs"])
    outputs = tuple(spec(*each) for each in loaded["outputs"])
    return Metadata(str(loaded["platform"]), inputs, outputs, any_numeric=loaded["any_numeric"] is True)
