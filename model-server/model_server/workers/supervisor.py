"""Starts the template and talks with it: which worker was born, which one ended and how.

A template that dies takes its workers with it and is started again. Where the model can't be forked, every worker is a
template of its own that became one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from model_server.errors import LoadFailure, Reason
from model_server.models.base import Metadata
from model_server.models.tensors import TensorSpec
from model_server.workers import wire
from model_server.workers.template import PACKET_BYTES
from model_server.workers.worker import Recycling

_log = structlog.get_logger()

_AGAIN_SECONDS: Final = 1.0
_SINGLE_THREADED: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A process with threads can't be forked; the workers have as many as they should."""


@dataclass(frozen=True)
class ModelFiles:
    """What to load, as `models.loading.load` takes it."""

    path: Path
    format: str
    entrypoint: str
    threads: int
    max_bytes: int
    device: str


class _Process:
    """A template process and the socket to it."""

    def __init__(self, files: ModelFiles, recycling: Recycling) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-P", "-m", "model_server.workers.template", str(theirs.fileno())]
            # Started by the thread of the event loop, which lives as long as the process: the kernel ends the child
            # when the thread that started it ends.
            self._child = subprocess.Popen(
                [*command, str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_SINGLE_THREADED},
            )
        self.control.send(wire.header({**asdict(files), "path": str(files.path), **asdict(recycling)}))
        self.control.setblocking(False)

    def ended(self) -> str:
        """How it ended, waiting for it: its socket is closed already."""
        return told(self._child.wait())

    def stop(self) -> None:
        """End it, and with it all that it forked."""
        self.control.close()
        self._child.kill()
        self._child.wait()


class Supervisor:
    """The template of a pool. Its owner is told what becomes of the workers."""

    def __init__(
        self,
        files: ModelFiles,
        recycling: Recycling,
        born: Callable[[int, int], None],
        ended: Callable[[int, str], None],
    ) -> None:
        """`born(number, pid)` and `ended(number, how)` are called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._files = files
        self._recycling = recycling
        self._born = born
        self._ended = ended
        self._number = 0
        self._template: _Process | None = None
        self._alone: dict[int, _Process] = {}
        """Workers that are processes of their own, where forking isn't possible."""
        self._waiting: list[tuple[int, list[int]]] = []
        """Workers ordered while the template was loading."""
        self._loading = True
        self._loaded: asyncio.Future[Metadata] = self._loop.create_future()
        self.forks = True
        """Whether workers share the template's memory."""

    async def start(self) -> Metadata:
        """Load the model. LoadFailure says why it can't be."""
        self._begin()
        return await self._loaded

    def order(self, sock: int, requests: int, answers: int) -> int:
        """Have a worker made with these descriptors, of which the first is given away; its number."""
        self._number += 1
        descriptors = [sock, os.dup(requests), os.dup(answers)]
        self._make(self._number, descriptors)
        return self._number

    def release(self, number: int) -> None:
        """The worker is of no use any more, and has been killed."""
        if process := self._alone.pop(number, None):
            self._loop.remove_reader(process.control)
            process.stop()

    def stop(self) -> None:
        """End everything."""
        for process in [*self._alone.values(), *([self._template] if self._template else [])]:
            self._loop.remove_reader(process.control)
            process.stop()
        for _, descriptors in self._waiting:
            _close(descriptors)
        self._template, self._waiting = None, []
        self._alone.clear()

    def _begin(self) -> None:
        self._template = process = _Process(self._files, self._recycling)
        self._loading = True
        self._loop.add_reader(process.control, self._from_template, process)

    def _from_template(self, process: _Process) -> None:
        message = _received(process)
        if message is None:
            self._template_ended(process, process.ended())
        elif "failed" in message:
            self._fail(LoadFailure(Reason(message["failed"][0]), message["failed"][1]))
        elif "loaded" in message:
            self._ready(process, message)
        elif "born" in message:
            self._born(message["born"], message["pid"])
        elif "ended" in message:
            self._ended(message["ended"], told(message["code"]))

    def _ready(self, process: _Process, message: dict[str, Any]) -> None:
        self._loading = False
        self.forks = message["forks"]
        if not self.forks:
            _log.info("the model has threads once it is loaded: every worker loads it for itself")
            self._loop.remove_reader(process.control)
            process.stop()
            self._template = None
        waiting, self._waiting = self._waiting, []
        for number, descriptors in waiting:
            self._make(number, descriptors)
        if not self._loaded.done():
            self._loaded.set_result(_metadata(message["loaded"]))

    def _template_ended(self, process: _Process, how: str) -> None:
        self._loop.remove_reader(process.control)
        process.control.close()
        self._template = None
        if not self._loaded.done():
            self._fail(LoadFailure(Reason.LOAD_FAILED, f"the process that loads the model ended ({how})"))
            return
        _log.error("the process that workers are forked from ended: starting another", how=how)
        self._loading = True
        self._loop.call_later(_AGAIN_SECONDS, self._begin)

    def _make(self, number: int, descriptors: list[int]) -> None:
        if self._loading:
            self._waiting.append((number, descriptors))
        elif self._template is not None:
            _send(self._template, number, descriptors, fork=True)
        else:
            self._alone[number] = process = _Process(self._files, self._recycling)
            self._loop.add_reader(process.control, self._from_single, process, number, descriptors)

    def _from_single(self, process: _Process, number: int, descriptors: list[int]) -> None:
        message = _received(process)
        if message is None:  # it serves now, or has ended: then its worker's socket is closed too
            self._loop.remove_reader(process.control)
            _close(descriptors)
        elif "failed" in message:
            self._ended(number, str(message["failed"][1]))
        elif "loaded" in message:
            _send(process, number, descriptors, fork=False)
            descriptors.clear()
        elif "born" in message:
            self._born(number, message["pid"])

    def _fail(self, failure: LoadFailure) -> None:
        if not self._loaded.done():
            self._loaded.set_exception(failure)


def _received(process: _Process) -> dict[str, Any] | None:
    """A message; None when the process has closed its end."""
    try:
        packet = process.control.recv(PACKET_BYTES)
    except BlockingIOError:
        return {}
    except OSError:
        return None
    return wire.parsed(packet) if packet else None


def _send(process: _Process, number: int, descriptors: list[int], *, fork: bool) -> None:
    with contextlib.suppress(OSError):  # it has ended, of which its reader will hear
        socket.send_fds(process.control, [wire.header({"number": number, "fork": fork})], descriptors)
    _close(descriptors)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def told(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"{signal.Signals(-code).name}{', perhaps out of memory' if code == -signal.SIGKILL else ''}"
    return f"signal {-code}"


def _metadata(loaded: dict[str, Any]) -> Metadata:
    def specs(of: list[Any]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, datatype, tuple(shape)) for name, datatype, shape in of)

    return Metadata(loaded["platform"], specs(loaded["inputs"]), specs(loaded["outputs"]), loaded["any_numeric"])
