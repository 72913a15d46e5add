"""How tensors should travel between the front and its workers: a round trip for each way and size.

python -m benchmarks.bench_codec: a child process echoes what it gets over a socket pair. Ways: pickle protocol 5 in one
packet, msgpack, and ours (a JSON header; raw bytes in the packet up to 16 KiB, in shared memory above). Medians of
several rounds, the ways taking turns. The receiver never unpickles in ours, whatever the others cost.
"""

from __future__ import annotations

import os
import pickle
import socket
import statistics
import struct
import time
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np

from model_server.workers.channel import Channel, arrays, new_file

SIZES = {"100 B": 25, "10 KiB": 2560, "3 MB": 750_000}
ROUNDS = 7
_LENGTH = struct.Struct("<Q")


def _send(sock: socket.socket, data: bytes) -> None:
    sock.sendall(_LENGTH.pack(len(data)))
    sock.sendall(data)


def _receive(sock: socket.socket) -> bytes:
    (size,) = _LENGTH.unpack(_exactly(sock, _LENGTH.size))
    return _exactly(sock, size)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        view = view[sock.recv_into(view) :]
    return bytes(data)


def _pickled(array: Any) -> bytes:
    return pickle.dumps({"x": array}, protocol=5)


def _packed(array: Any) -> bytes:
    return msgpack.packb({"x": [str(array.dtype), list(array.shape), array.tobytes()]})


def _unpickled(data: bytes) -> Any:
    return pickle.loads(data)["x"]  # noqa: S301 - what is compared


def _unpacked(data: bytes) -> Any:
    dtype, shape, raw = msgpack.unpackb(data)["x"]
    return np.frombuffer(raw, dtype).reshape(shape)


class _Stream:
    """Whole messages over a stream, by an encoder and a decoder."""

    def __init__(self, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any]) -> None:
        self._encode, self._decode = encode, decode
        self._ours, theirs = socket.socketpair()
        self._child = os.fork()
        if not self._child:
            self._ours.close()
            while True:
                try:
                    _send(theirs, encode(decode(_receive(theirs))))
                except (OSError, ValueError, IndexError):
                    os._exit(0)
        theirs.close()

    def ask(self, array: Any) -> Any:
        _send(self._ours, self._encode(array))
        return self._decode(_receive(self._ours))

    def close(self) -> None:
        self._ours.close()
        os.kill(self._child, 9)
        os.waitpid(self._child, 0)


class _Ours:
    """A worker's channel."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        requests, answers = new_file("requests"), new_file("answers")
        self._child = os.fork()
        if not self._child:
            ours.close()
            channel = Channel(theirs, answers, requests)
            while (received := channel.receive()) is not None:
                message, memory = received
                channel.send({}, arrays(message, memory))
            os._exit(0)
        theirs.close()
        self._channel = Channel(ours, requests, answers)

    def ask(self, array: Any) -> Any:
        self._channel.send({}, {"x": array})
        received = self._channel.receive()
        assert received is not None
        return arrays(*received)["x"]

    def close(self) -> None:
        self._channel.close()
        os.waitpid(self._child, 0)


def main() -> None:
    """Print microseconds a round trip."""
    ways: dict[str, Any] = {
        "pickle 5": _Stream(_pickled, _unpickled),
        "msgpack": _Stream(_packed, _unpacked),
        "raw buffers (ours)": _Ours(),
    }
    print(f"{'µs a round trip, median (least to most)':40}" + "".join(f"{size:>24}" for size in SIZES))
    samples: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for size, count in SIZES.items():
            array = np.arange(count, dtype=np.float32)
            for name, way in ways.items():
                assert np.array_equal(way.ask(array), array)
                times = 500 if count < 100_000 else 30
                started = time.perf_counter()
                for _ in range(times):
                    way.ask(array)
                samples.setdefault((name, size), []).append(1e6 * (time.perf_counter() - started) / times)
    for name, way in ways.items():
        row = "".join(
            f"{statistics.median(s):12,.0f} ({min(s):,.0f}–{max(s):,.0f})".rjust(24)
            for s in (samples[name, size] for size in SIZES)
        )
        print(f"{name:40}{row}")
        way.close()


if __name__ == "__main__":
    main()
