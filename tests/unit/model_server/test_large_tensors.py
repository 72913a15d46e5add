"""A request of 3 MB in raw bytes, through a whole server: what it allocates, what it copies, and that it is right."""

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
from model_serving import NAME, FakeModel, serving, spec

IMAGE = (1, 3, 512, 512)
BYTES = 4 * 3 * 512 * 512


def message(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    told = {"name": "x", "datatype": "FP32", "shape": x.shape, "parameters": {"binary_data_size": x.nbytes}}
    json = orjson.dumps({"inputs": [told], "parameters": {"binary_data_output": True}})
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
