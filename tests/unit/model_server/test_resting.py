"""How long a connection stays open on which nobody asks anything."""

from __future__ import annotations

import asyncio
import time

import pytest

from model_process import connected, one_answer, post
from model_server.rest import http_server
from model_serving import FakeModel, Gate, serving, until

KEEP_ALIVE = 0.4
BODY = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}'
INFER = post("/v2/models/digits/infer", BODY)
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "KEEP_ALIVE_SECONDS", KEEP_ALIVE)


@pytest.mark.parametrize("last", [INFER, LIVE], ids=["a prediction", "a probe"])
async def test_it_is_closed_so_long_after_the_last_answer(last: bytes) -> None:
    async with serving() as server, connected(server.port) as (reader, writer):
        for sent in (LIVE, INFER, LIVE, INFER, last):
            await asyncio.sleep(0.6 * KEEP_ALIVE)
            writer.write(sent)
            assert await one_answer(reader) == 200
        answered = time.monotonic()
        assert await reader.read() == b"", "closed, and nothing else said"
        assert 0.9 * KEEP_ALIVE < time.monotonic() - answered < KEEP_ALIVE + 1


async def test_it_is_not_closed_on_a_request_that_takes_longer() -> None:
    gate = Gate()
    async with serving(FakeModel(function=gate)) as server, connected(server.port) as (reader, writer):
        writer.write(LIVE)
        assert await one_answer(reader) == 200
        writer.write(INFER)
        await gate.wait_entered()
        await asyncio.sleep(2 * KEEP_ALIVE)
        gate.open.set()
        assert await one_answer(reader) == 200


async def test_it_is_not_closed_on_requests_that_came_together_with_one_that_was_answered_at_once() -> None:
    gate = Gate()
    unknown = post("/v2/models/other/infer", BODY)
    async with serving(FakeModel(function=gate)) as server, connected(server.port) as (reader, writer):
        writer.write(unknown + INFER + INFER)
        assert await one_answer(reader) == 404
        await gate.wait_entered()
        await asyncio.sleep(2 * KEEP_ALIVE)
        gate.open.set()
        assert await one_answer(reader) == 200
        assert await one_answer(reader) == 200


async def test_its_timer_goes_with_it() -> None:
    async with serving() as server:
        async with connected(server.port) as (reader, writer):
            writer.write(INFER)
            assert await one_answer(reader) == 200
            (connection,) = server.web.server_state.connections
            assert connection.timeout_keep_alive_task is not None
        await until(lambda: not server.web.connections)
        assert connection.timeout_keep_alive_task is None
