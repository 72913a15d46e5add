"""The template: loads and warms the model once, then forks a worker whenever the front asks for one.

A fresh interpreter without HTTP. A worker is forked twice over, so that it becomes a child of the front, which learns
how it ends and outlives the template's end. A model that leaves threads behind can't be forked: then this process says
so, becomes a worker itself when asked, and the front starts one such process for each worker.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import socket
import sys
import time
import traceback
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final, NoReturn

from model_server import logs
from model_server.errors import LoadFailure, Reason, first_line
from model_server.models.base import Model
from model_server.models.loading import load, warm_up
from model_server.models.tensors import TensorSpec
from model_server.workers import wire
from model_server.workers.channel import Channel
from model_server.workers.process import HANDED, die_with_parent
from model_server.workers.worker import Recycling, serve

PACKET_BYTES: Final = 64 * 1024
DESCRIPTORS: Final = 3
"""That come with the order to make a worker: its socket, and its memory files for requests and answers."""
_ADOPTED_SECONDS: Final = 10.0


def main() -> NoReturn:
    """Serve the front, the process whose number is the one argument, over the socket at HANDED."""
    front = int(sys.argv[1])
    die_with_parent(front)
    faulthandler.enable()
    os.setsid()  # a Ctrl-C at the terminal is for the front, which ends its workers when it has drained
    signal.signal(signal.SIGTERM, lambda *_: None)  # the front's too; what a model starts doesn't inherit a function
    _write_lines_at_once()
    control = socket.socket(fileno=HANDED)
    order = wire.parsed(control.recv(PACKET_BYTES))
    if order["logs"]:
        logs.configure(**order["logs"])
    try:
        model = _loaded(order)
    except LoadFailure as failure:
        control.send(wire.header({"failed": [failure.reason.value, failure.message[:4000]]}))
        _leave(1)
    outcome = warm_up(model)
    gc.collect()
    gc.freeze()  # a collection in a worker must not write to, and so copy, what it shares
    control.send(wire.header({"loaded": _told(model), "warm_up": outcome, "forks": _forkable()}))
    with contextlib.suppress(OSError):  # the front has gone
        _Template(control, model, order, front).run()
    _leave(0)


def _loaded(order: dict[str, Any]) -> Model:
    try:
        path, max_bytes = Path(order["path"]), order["max_bytes"]
        return load(path, order["format"], order["entrypoint"], 1, max_bytes, device=order["device"])
    except LoadFailure:
        raise
    except Exception as error:
        traceback.print_exc()
        told = f"loading raised {type(error).__name__}: {first_line(error)}"
        raise LoadFailure(Reason.LOAD_FAILED, told) from error


class _Template:
    def __init__(self, control: socket.socket, model: Model, order: dict[str, Any], front: int) -> None:
        self._control = control
        self._model = model
        self._recycling = Recycling(order["max_requests"], order["max_rss_bytes"])
        self._threads: int = order["threads"]
        self._front = front

    def run(self) -> None:
        """Obey until the front goes away."""
        while True:
            packet, descriptors, _, _ = socket.recv_fds(self._control, PACKET_BYTES, DESCRIPTORS)
            if not packet:
                return
            if not wire.parsed(packet)["fork"]:
                self._become_worker(descriptors)
            try:
                told: dict[str, Any] = {"born": self._fork(descriptors)}
            except OSError as error:  # no more processes, or no memory, for now
                told = {"refused": str(error)}
            for each in descriptors:
                os.close(each)
            self._control.send(wire.header(told))

    def _fork(self, descriptors: list[int]) -> int:
        """A worker's pid; the process in between has ended, so it is the front's child now. OSError."""
        sys.stdout.flush()
        sys.stderr.flush()
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            between = os.fork()
            if not between:
                self._between(pipe, descriptors)
            os.waitpid(between, 0)
            return int(os.read(pipe[0], 32))  # BlockingIOError, an OSError, when it could not fork either
        finally:
            for each in pipe:
                os.close(each)

    def _between(self, pipe: tuple[int, int], descriptors: list[int]) -> NoReturn:
        try:
            pid = os.fork()
            if pid:
                os.write(pipe[1], b"%d" % pid)
                os._exit(0)
            for each in pipe:
                os.close(each)
            os.setsid()
            self._adopted()
            self._become_worker(descriptors)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)

    def _adopted(self) -> None:
        """Wait until the front is the parent."""
        deadline = time.monotonic() + _ADOPTED_SECONDS
        while os.getppid() != self._front and time.monotonic() < deadline:
            time.sleep(0.0002)
        die_with_parent(self._front)

    def _become_worker(self, descriptors: list[int]) -> NoReturn:
        self._control.close()
        sock, incoming, outgoing = descriptors
        try:
            serve(self._model, Channel(socket.socket(fileno=sock), outgoing, incoming), self._recycling, self._threads)
        except OSError:  # the front has gone
            _leave(1)
        except BaseException:
            traceback.print_exc()
            _leave(1)
        _leave(0)


def _leave(status: int) -> NoReturn:
    """End at once: nothing of the template's is to be cleaned up, and no thread of the model's waited for."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _write_lines_at_once() -> None:
    """What a model prints must not wait in a buffer, to be lost with its worker, or to be printed by each of them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def _forkable() -> bool:
    """Whether no thread is left that a fork would lose.

    Libraries that know of forks (OpenBLAS) end their threads before one, and start them again when needed: a throw-away
    fork tells them apart from those that don't.
    """
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    return len(os.listdir("/proc/self/task")) == 1


def _told(model: Model) -> dict[str, Any]:
    metadata = model.metadata

    def specs(of: tuple[TensorSpec, ...]) -> list[Any]:
        return [[spec.name, spec.datatype, list(spec.shape)] for spec in of]

    return {
        "platform": metadata.platform,
        "inputs": specs(metadata.inputs),
        "outputs": specs(metadata.outputs),
        "any_numeric": metadata.any_numeric,
    }
