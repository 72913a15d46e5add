"""Connections that are slow, malformed or hostile: an answer within bounds, never a 5xx, never a second request."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import httpx
import pytest

from model_process import ServerProcess, connected, post, spoken, started

INFER = "/v2/models/digits/infer"
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}).encode()
GET = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
IMPATIENT = "import model_server.rest.connection as c; c.HEAD_SECONDS = 0.3; c.LINGER_SECONDS = 0.3"


def statuses(answer: bytes) -> list[int]:
    """The status codes in everything that came back."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(b"nonsense\r\n\r\n", [400], id="no HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", [400], id="TLS on a plain port"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400], id="HTTP/2"),
        pytest.param(
            GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400], id="both lengths"
        ),
        pytest.param(GET + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", [400], id="two lengths"),
        pytest.param(GET + b"Content-Length: -1\r\n\r\n", [400], id="a negative length"),
        pytest.param(GET + b"Content-Length: 99999999999999999999\r\n\r\n", [400], id="a length beyond 64 bits"),
        pytest.param(GET + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", [400], id="a chunk size that is no number"),
        pytest.param(GET + CHUNKED + b", identity\r\n\r\n0\r\n\r\n", [400], id="identity after chunked"),
        pytest.param(GET + b"X-Y : 1\r\n\r\n", [400], id="a blank before the colon"),
        pytest.param(GET + b"X-Y: a\x00b\r\n\r\n", [400], id="NUL in a header"),
        pytest.param(GET + b"X-Y: " + b"a" * 100_000 + b"\r\n\r\n", [400], id="a header of 100 kB"),
        pytest.param(GET + b"X-Y: a\r\n" * 20_000 + b"\r\n", [400], id="20,000 headers"),
        pytest.param(b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", [400], id="a path of 100 kB"),
        pytest.param(b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", [400], id="a path that is no ASCII"),
        pytest.param(b"CONNECT metadata:80 HTTP/1.1\r\nHost: metadata\r\n\r\n", [400], id="CONNECT"),
        pytest.param(b"TRACE /v2 HTTP/1.1\r\nHost: x\r\n\r\n", [405], id="TRACE"),
        pytest.param(b"GET http://metadata/v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n", [200], id="an absolute URL"),
        pytest.param(b"GET /v1/models/../../metrics HTTP/1.1\r\nHost: x\r\n\r\n", [404], id="dots in the path"),
        pytest.param(b"GET //v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n", [404], id="two slashes"),
        pytest.param(b"GET /v2/health/live HTTP/1.1\r\nHost: a/b?c#d\r\n\r\n", [200], id="a path in Host"),
        pytest.param(GET + b"Range: " + b",".join([b"0-1"] * 10_000) + b"\r\n\r\n", [200], id="10,000 ranges"),
        pytest.param(GET + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", [200], id="no websockets"),
        pytest.param(GET + b"\r\n" + GET + b"\r\n", [200, 200], id="two requests at once are answered in turn"),
        pytest.param(post(INFER, b"[" * 100_000), [400], id="100,000 brackets"),
        pytest.param(post(INFER, BODY, "Content-Encoding: gzip"), [400], id="a body that claims to be compressed"),
        pytest.param(post(INFER, BODY, "Content-Encoding: br"), [415], id="a body that claims to be brotli"),
    ],
)
async def test_what_is_not_plain_http_is_answered_once_and_never_with_a_server_error(
    server: ServerProcess, sent: bytes, expected: list[int]
) -> None:
    answer = await spoken(server.port, sent, seconds=0.7)
    assert statuses(answer) == expected
    if expected == [400]:
        assert b"application/problem+json" in answer
    assert statuses(await spoken(server.port, GET + b"Connection: close\r\n\r\n")) == [200]


async def test_a_request_hidden_in_a_body_is_not_answered(server: ServerProcess) -> None:
    hidden = GET + b"\r\n"
    sent = post(INFER, BODY).replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length") + hidden
    assert statuses(await spoken(server.port, sent, seconds=0.7)) == [400]


async def test_hundreds_of_requests_sent_at_once_are_answered_in_turn(server: ServerProcess) -> None:
    refused_at_once = post("/v2/models/other/infer", b"{}") * 400
    answer = await spoken(server.port, GET + b"\r\n" + refused_at_once + GET + b"Connection: close\r\n\r\n", seconds=10)
    assert statuses(answer) == [200, *[404] * 400, 200]


async def test_a_body_in_very_many_small_chunks_is_put_together(server: ServerProcess) -> None:
    padded = BODY + b" " * (100_000 - len(BODY))
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in padded) + b"0\r\n\r\n"
    head = post(INFER, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    started_at = time.monotonic()
    assert statuses(await spoken(server.port, head + chunks, seconds=3)) == [200]
    assert time.monotonic() - started_at < 4


def test_a_declared_body_over_the_limit_is_refused_and_the_connection_stays_usable(server: ServerProcess) -> None:
    with httpx.Client() as http:
        refused = http.post(server.url + INFER, content=b" " * 5_000_000, headers={"content-type": "application/json"})
        assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
        stream = refused.extensions["network_stream"]
        good = http.post(server.url + INFER, content=BODY)
        assert good.status_code == 200
        assert good.extensions["network_stream"] is stream


async def test_the_refusal_comes_before_the_body(server: ServerProcess) -> None:
    head = post(INFER, b"").replace(b"Content-Length: 0", b"Content-Length: 500000000000")
    assert statuses(await spoken(server.port, head, seconds=0.5)) == [413]


async def test_a_body_without_end_is_refused_at_the_limit_and_cut_off() -> None:
    model = Path(__file__).parents[3] / "model-server" / "examples" / "sleep.py"
    options = {"MAX_BODY_BYTES": "10000"}
    with started("--model", f"digits={model}", "--format", "python", before=IMPATIENT, **options) as running:
        head = post(INFER, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        async with connected(running.port) as (reader, writer):
            writer.write(head)
            answer = b""

            async def send() -> None:
                while True:
                    writer.write(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.01)

            sending = asyncio.create_task(send())
            async with asyncio.timeout(5):  # the server ends it
                try:
                    while part := await reader.read(65536):
                        answer += part
                except ConnectionError:
                    pass
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        assert statuses(answer) == [413]


@pytest.mark.parametrize("sent", [b"", b"POST /v2", GET + b"X-Slow: "], ids=["nothing", "half a line", "half a head"])
async def test_a_head_that_does_not_come_is_hung_up_on(onnx_file: Path, sent: bytes) -> None:
    with started("--model", f"digits={onnx_file}", before=IMPATIENT) as running:
        started_at = time.monotonic()
        assert await spoken(running.port, sent, seconds=5) == b""
        assert time.monotonic() - started_at < 3


async def test_a_byte_now_and_then_does_not_keep_a_connection(onnx_file: Path) -> None:
    with started("--model", f"digits={onnx_file}", before=IMPATIENT) as running:
        async with connected(running.port) as (reader, writer):
            gone = asyncio.create_task(reader.read())
            for byte in GET * 3:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
                if gone.done():
                    break
            assert gone.done()


async def test_a_body_that_does_not_come_is_answered_at_the_deadline(server: ServerProcess) -> None:
    slow = post(INFER, BODY, "x-request-timeout-ms: 200")[:-5]
    answer = await spoken(server.port, slow, seconds=3)
    assert statuses(answer) == [408]
    assert b"body_timeout" in answer
    assert b"connection: close" in answer.lower()


async def test_five_hundred_slow_clients_do_not_keep_others_out(server: ServerProcess) -> None:
    slow = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(500)]
    for _, writer in slow:
        writer.write(b"POST /v2/models/digits/infer HTTP/1.1\r\nContent-Le")
    async with httpx.AsyncClient() as http:
        for _ in range(20):
            assert (await http.post(server.url + INFER, content=BODY)).status_code == 200
    for _, writer in slow:
        writer.close()
