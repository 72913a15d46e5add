"""The template: loads the model once, then forks a worker whenever the front asks for one.

A fresh interpreter without HTTP (`python -m model_server.workers.template FD`). It never predicts. A model that leaves
threads behind when it is loaded can't be forked: then this process says so and becomes a worker itself when asked, and
the front starts one such process for each worker.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

from model_server.errors import LoadFailure
from model_server.models.base import Model
from model_server.models.loading import load
from model_server.models.tensors import TensorSpec
from model_server.workers import wire
from model_server.workers.channel import Channel
from model_server.workers.worker import Recycling, die_with_parent, serve

PACKET_BYTES: Final = 64 * 1024
_DESCRIPTORS: Final = 3
"""That come with the order to make a worker: its socket, and the two memory files."""
_CHECK_SECONDS: Final = 1.0


def main(descriptor: int, parent: int) -> None:
    """Serve the front at the other end of `descriptor`, which is the process `parent`."""
    die_with_parent(parent)
    faulthandler.enable()
    os.setsid()  # a Ctrl-C at the terminal is for the front, which ends its workers when it has drained
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control = socket.socket(fileno=descriptor)
    order = wire.parsed(control.recv(PACKET_BYTES))
    try:
        path, max_bytes = Path(order["path"]), order["max_bytes"]
        model = load(path, order["format"], order["entrypoint"], 1, max_bytes, device=order["device"])
    except LoadFailure as failure:
        control.send(wire.header({"failed": [failure.reason.value, failure.message]}))
        return
    gc.collect()
    gc.freeze()  # a collection in a worker must not write to, and so copy, what it shares
    control.send(wire.header({"loaded": _told(model), "forks": _threads() == 1}))
    recycling = Recycling(order["max_requests"], order["max_rss_bytes"])
    _Template(control, model, recycling, order["threads"]).run()


class _Template:
    def __init__(self, control: socket.socket, model: Model, recycling: Recycling, threads: int) -> None:
        self._control = control
        self._model = model
        self._recycling = recycling
        self._threads = threads
        self._workers: dict[int, int] = {}
        """Number of the worker by pid."""

    def run(self) -> None:
        """Obey until the front goes away; tell of every worker that ends."""
        wake, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        descriptor = self._control.fileno()
        while True:
            ready, _, _ = select.select([descriptor, wake], [], [], _CHECK_SECONDS)
            if wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
            self._reap()
            if descriptor in ready and not self._obey():
                return

    def _obey(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(self._control, PACKET_BYTES, _DESCRIPTORS)
        if not packet:
            return False
        order = wire.parsed(packet)
        sock, incoming, outgoing = descriptors
        if order["fork"]:
            template = os.getpid()
            pid = os.fork()
            if pid:
                for each in descriptors:
                    os.close(each)
                self._workers[pid] = order["number"]
                self._control.send(wire.header({"born": order["number"], "pid": pid}))
                return True
            die_with_parent(template)
        else:
            self._control.send(wire.header({"born": order["number"], "pid": os.getpid()}))
        return self._become_worker(Channel(socket.socket(fileno=sock), outgoing, incoming))

    def _become_worker(self, channel: Channel) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        status = 0
        try:
            serve(self._model, channel, self._recycling, self._threads)
        except OSError:  # the front has gone
            status = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # nothing of the template's is to be cleaned up here

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if (number := self._workers.pop(pid, None)) is not None:
                self._control.send(wire.header({"ended": number, "code": os.waitstatus_to_exitcode(status)}))


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


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
