"""One end of the way between the front and a worker, with the other end in the same process."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from model_server.workers import wire
from model_server.workers.channel import INLINE_BYTES, Channel, MemoryFile, arrays, new_file
from model_server.workers.wire import WireError


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    requests, answers = new_file("requests"), new_file("answers")
    both = Channel(ours, requests, answers), Channel(theirs, os.dup(answers), os.dup(requests))
    yield both
    for end in both:
        end.close()


def received(channel: Channel) -> tuple[dict[str, Any], memoryview]:
    message = channel.receive()
    assert message is not None
    return message


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 5_000_000])
def test_tensors_of_any_size_arrive_both_ways(ends: tuple[Channel, Channel], size: int) -> None:
    sent = np.arange(size).astype(np.uint8)
    for source, target in (ends, ends[::-1]):
        source.send({"number": size}, {"x": sent})
        message, memory = received(target)
        assert message["number"] == size
        assert np.array_equal(arrays(message, memory)["x"], sent)


def test_a_header_larger_than_a_packet_arrives(ends: tuple[Channel, Channel]) -> None:
    ends[0].send({"text": "x" * 500_000})
    assert len(received(ends[1])[0]["text"]) == 500_000


def test_the_end_of_the_other_side_is_told(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(ours, new_file("a"), new_file("b"))
    theirs.close()
    assert channel.receive() is None
    channel.close()


def test_memory_cannot_be_taken_away_from_the_other_side() -> None:
    descriptor = new_file("x")
    os.ftruncate(descriptor, 8192)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 4096)
    os.close(descriptor)


def test_a_rest_gives_back_what_a_large_message_needed(ends: tuple[Channel, Channel]) -> None:
    descriptor = new_file("x")
    file = MemoryFile(descriptor)
    file.at_least(2**25)[:] = b"\1" * 2**25
    assert os.fstat(descriptor).st_blocks * 512 == 2**25
    file.rest()
    assert os.fstat(descriptor).st_blocks * 512 == 2**24
    file.at_least(2**25)[-1:] = b"\2"
    file.close()


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, id="nothing"),
        pytest.param(8193, id="more than there is"),
        pytest.param(wire.MAX_BYTES * 2, id="more than there may be"),
    ],
)
def test_memory_that_is_announced_must_be_there(size: int) -> None:
    descriptor = new_file("x")
    os.ftruncate(descriptor, 8192 if size < wire.MAX_BYTES else 4 * wire.MAX_BYTES)  # sparse: it costs nothing
    file = MemoryFile(descriptor)
    with pytest.raises(WireError):
        file.first(size)
    file.close()


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(b"\0", id="a byte"),
        pytest.param(struct.pack("<IIB", 2, 0, 0) + b"{}x", id="a byte too many"),
        pytest.param(struct.pack("<IIB", 3, 0, 0) + b"{}", id="a byte too few"),
        pytest.param(struct.pack("<IIB", 2**32 - 1, 2**32 - 1, 1), id="memory without end"),
        pytest.param(struct.pack("<IIB", 2, 0, 0) + b"[]", id="a header that is no object"),
    ],
)
def test_packets_that_are_no_messages_are_refused(packet: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = Channel(ours, new_file("a"), new_file("b"))
    with theirs:
        theirs.send(packet)
        with pytest.raises(WireError):
            channel.receive()
    channel.close()
