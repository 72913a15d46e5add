"""Messages between two processes of one server, some with a connection: JSON in packets of a Unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any, Final

import orjson

Message = dict[str, Any]
Receive = Callable[[Message, int | None], None]
"""(message, file descriptor that came with it: the receiver's to close)."""

_MAX_BYTES: Final = 256 * 1024
_BUFFER_BYTES: Final = 1024 * 1024


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return ends


class Channel:
    """One end, on the running event loop."""

    def __init__(self, end: socket.socket, receive: Receive, lost: Callable[[], None]) -> None:
        """`lost` is called once, when the other process has gone."""
        self._loop = asyncio.get_running_loop()
        self._end = end
        self._receive = receive
        self._lost = lost
        self._open = True
        self._loop.add_reader(end.fileno(), self._readable)

    def send(self, message: Message, fd: int | None = None) -> bool:
        """Whether it is on its way: not if the other side is gone (which is learnt by reading: `lost`) or too slow.

        `fd` stays the caller's.
        """
        if not self._open:
            return False
        try:
            socket.send_fds(self._end, [orjson.dumps(message)], [] if fd is None else [fd])
        except OSError:
            return False
        return True

    def close(self) -> None:
        """No more messages."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._end.fileno())
            self._end.close()

    def _readable(self) -> None:
        while self._open:
            try:
                packet, fds, *_ = socket.recv_fds(self._end, _MAX_BYTES, 4)
            except BlockingIOError:
                return
            except OSError:
                packet, fds = b"", []
            if not packet:
                self.close()
                self._lost()
                return
            for extra in fds[1:]:
                os.close(extra)
            self._receive(orjson.loads(packet), fds[0] if fds else None)
