"""One end of the way between the front and a worker: a socket for headers, a memory file for each direction.

A message is one packet, its header and, where it is small, its tensors; larger ones lie in the memory file. One message
is under way at a time, so the file is never written while it is read. It can only grow (sealed against shrinking), so
that no end can take memory away that the other is reading.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

from model_server.models.tensors import Array, Tensors
from model_server.workers import wire
from model_server.workers.wire import WireError

INLINE_BYTES: Final = 16 * 1024
"""Tensors up to this size travel in the packet: measured as quick as memory that is mapped already."""
PACKET_BYTES: Final = 128 * 1024
_KEPT_BYTES: Final = 16 * 1024**2
"""Of a memory file between two predictions; what a larger one needed is given back."""
_MAX_MAPPED: Final = wire.MAX_BYTES + 64 * 1024**2
"""The header may lie there too."""
_PREFIX: Final = struct.Struct("<IIB")
"""Length of the header, bytes of the tensors, whether they lie in the memory file."""


def new_file(name: str) -> int:
    """A memory file that only grows: its descriptor."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return descriptor


class MemoryFile:
    """A memory file as far as this process has mapped it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None

    def at_least(self, size: int) -> memoryview:
        """The memory, made larger where it has less than `size` bytes."""
        if os.fstat(self._descriptor).st_size < size:
            os.ftruncate(self._descriptor, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
        return self.first(size)

    def first(self, size: int) -> memoryview:
        """Its first `size` bytes. WireError when it hasn't so many."""
        if self._map is None or len(self._map) < size:
            there = os.fstat(self._descriptor).st_size
            if not 0 < size <= min(there, _MAX_MAPPED):
                raise WireError(f"{size} bytes of {there} were announced")
            self._map = mmap.mmap(self._descriptor, min(there, _MAX_MAPPED))  # views of the old one keep it alive
        return memoryview(self._map)[:size]

    def rest(self) -> None:
        """Nothing in it is needed any more: give memory back, which only makes a hole in it."""
        if self._map is not None and len(self._map) > _KEPT_BYTES:
            self._map.madvise(mmap.MADV_REMOVE, _KEPT_BYTES, len(self._map) - _KEPT_BYTES)

    def close(self) -> None:
        """Give the descriptor back; views that are left keep their memory."""
        os.close(self._descriptor)
        self._map = None


class Channel:
    """Sends and receives messages: a header with, perhaps, tensors under the key `tensors`."""

    def __init__(self, sock: socket.socket, outgoing: int, incoming: int) -> None:
        """`sock`: of type SOCK_SEQPACKET; the two descriptors of memory files."""
        self._sock = sock
        self._outgoing = MemoryFile(outgoing)
        self._incoming = MemoryFile(incoming)

    def fileno(self) -> int:
        """The socket's descriptor, to wait on."""
        return self._sock.fileno()

    def close(self) -> None:
        """No more messages."""
        self._sock.close()
        self._outgoing.close()
        self._incoming.close()

    def rest(self) -> None:
        """What has been sent and received is done with."""
        self._outgoing.rest()
        self._incoming.rest()

    def send(self, message: dict[str, Any], tensors: Tensors | None = None) -> None:
        """OSError when the other end has gone; UnsendableError, and nothing is sent."""
        parts: Sequence[wire.Part] = ()
        size = 0
        if tensors is not None:
            message["tensors"], parts, size = wire.described(tensors)
        header = wire.header(message)
        outside = size > INLINE_BYTES or len(header) > PACKET_BYTES // 2
        if not outside:
            body = bytes(wire.placed(parts, size)) if parts else b""
            self._sock.send(_PREFIX.pack(len(header), size, 0) + header + body)
            return
        memory = self._outgoing.at_least(size + len(header))
        for start, data in parts:
            memory[start : start + data.nbytes] = data
        memory[size : size + len(header)] = header
        self._sock.send(_PREFIX.pack(len(header), size, 1))

    def receive(self) -> tuple[dict[str, Any], memoryview] | None:
        """(header, memory of its tensors, valid until the next message is asked for); None: the other end has gone.

        WireError for anything that is no message.
        """
        packet = self._sock.recv(PACKET_BYTES)
        if not packet:
            return None
        if len(packet) < _PREFIX.size:
            raise WireError("a packet is too short")
        length, size, outside = _PREFIX.unpack_from(packet)
        if outside:
            memory = self._incoming.first(size + length)
            return wire.parsed(bytes(memory[size : size + length])), memory[:size]
        body = memoryview(packet)[_PREFIX.size :]
        if len(body) != length + size:
            raise WireError("a packet has not the length that it tells")
        return wire.parsed(body[:length]), body[length:]


def arrays(message: dict[str, Any], memory: memoryview) -> dict[str, Array]:
    """The tensors of a message, copied. WireError."""
    return wire.tensors(message.get("tensors"), memory)
