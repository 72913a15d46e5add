"""Tensors of 3 MB through a whole server: what they allocate, that they are right, and clients that don't read them."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc

import numpy as np
import orjson
import pytest
import uvloop

from model_server.models.base import Metadata
from model_server.models.tensors import Tensors
from model_server.rest import connection
from model_serving import NAME, FakeModel, serving, spec, until

IMAGE = (1, 3, 512, 512)
BYTES = 4 * 3 * 512 * 512


def message(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    told = {"name": "x", "datatype": "FP32", "shape": x.shape, "parameters": {"binary_data_size": x.nbytes}}
    json = orjson.dumps({"inputs": [told], "parameters": {"binary_data_output": True}})
    json += b" " * (1 - len(json) % 2)  # an odd number of bytes, so that numbers don't lie well by chance
    head = (
        f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nhost: h\r\ncontent-length: {len(json) + x.nbytes}\r\n"
        f"content-type: application/octet-stream\r\ninference-header-content-length: {len(json)}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + json + x.tobytes()


def exchange(port: int, sent: bytes, received: bytearray) -> int:
    """Bytes of the answer, which are in `received`; this client allocates nothing."""
    view, length = memoryview(received), 0
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(sent)
        while got := sock.recv_into(view[length:]):
            length += got
    return length


async def peak_of(model: FakeModel, sent: bytes, received: bytearray) -> int:
    """Bytes allocated at the same time, at most, for the second of two requests."""
    async with serving(model, max_body_bytes=2 * BYTES) as server:
        await asyncio.to_thread(exchange, server.port, sent, received)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            await asyncio.to_thread(exchange, server.port, sent, received)
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()


def in_place(inputs: Tensors) -> Tensors:
    inputs["x"][...] += 1
    return {"y": inputs["x"]}


@pytest.mark.parametrize(
    ("function", "most"),
    [
        pytest.param(lambda inputs: {"y": inputs["x"] + 1}, 2.2, id="an output of the same size"),
        pytest.param(in_place, 1.3, id="computed in place"),
    ],
)
def test_a_request_allocates_little_more_than_its_tensors(function: object, most: float) -> None:
    shape = (-1, *IMAGE[1:])
    model = FakeModel(Metadata("test", (spec("x", "FP32", *shape),), (spec("y", "FP32", *shape),)), function)  # type: ignore[arg-type]
    x = np.arange(BYTES // 4, dtype=np.float32).reshape(IMAGE)
    received = bytearray(BYTES + 4096)
    peak = uvloop.run(peak_of(model, message(x), received))
    assert BYTES < peak <= most * BYTES
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    json_length = int(head.lower().partition(b"inference-header-content-length: ")[2].split(b"\r\n")[0])
    assert orjson.loads(body[:json_length])["outputs"][0]["parameters"] == {"binary_data_size": BYTES}
    np.testing.assert_array_equal(np.frombuffer(body, np.float32, BYTES // 4, json_length).reshape(IMAGE), x + 1)


SMALL = orjson.dumps({"inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "data": [0]}]})
ASK = f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nhost: h\r\ncontent-length: {len(SMALL)}\r\n\r\n".encode() + SMALL
ANSWER = b"HTTP/1.1 200 OK"


def generator() -> FakeModel:
    """A small number becomes a large image."""
    return FakeModel(Metadata("test"), lambda _: {"y": np.zeros(BYTES // 4, np.float32)})


async def test_nothing_more_is_computed_for_a_client_that_does_not_read_until_it_does() -> None:
    model = generator()
    async with serving(model) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(ASK * 5)
        await until(lambda: len(model.seen) > 0)
        await asyncio.sleep(0.3)
        assert len(model.seen) <= 3  # some that the kernel has room for, and one more
        found = b""
        while found.count(ANSWER) < 5:
            found += await reader.read(2**20)
        assert len(model.seen) == 5
        writer.close()


async def go_on_sending(writer: asyncio.StreamWriter) -> None:
    while await asyncio.sleep(0.1, result=True):
        writer.write(b"x" * 2**16)
        await writer.drain()


async def test_a_client_that_reads_nothing_of_an_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READER_SECONDS", 0.1)
    async with serving(generator()) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(ASK * 5)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(go_on_sending(writer), 5)
        writer.close()
