"""Compressed bodies: as large as is allowed and no larger, and never at the expense of others."""

from __future__ import annotations

import asyncio
import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import httpx
import orjson
import pytest

from model_server.errors import Code, Problem
from model_server.rest.inflate import STEP_BYTES, inflated
from model_serving import FakeModel, Server, request, serving, until

LIMIT = 4 * STEP_BYTES
NOISE = random.Random(7).randbytes(3 * STEP_BYTES + 7)  # noqa: S311


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="a little"),
        pytest.param(NOISE, id="what doesn't become smaller"),
        pytest.param(bytes(STEP_BYTES), id="exactly one step"),
        pytest.param(bytes(STEP_BYTES + 1), id="a byte more than a step"),
        pytest.param(bytes(LIMIT), id="all that is allowed"),
    ],
)
async def test_a_body_is_inflated(compress: Callable[[bytes], bytes], body: bytes) -> None:
    assert await inflated(compress(body), LIMIT) == body


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(b"", "ends too early", id="nothing"),
        pytest.param(b"{}", "incorrect header", id="not compressed"),
        pytest.param(gzip.compress(NOISE)[:-1], "ends too early", id="cut off"),
        pytest.param(gzip.compress(NOISE)[:-8] + bytes(8), "incorrect data check", id="another check sum"),
        pytest.param(gzip.compress(b"{}") + b"!", "follows its end", id="something behind it"),
        pytest.param(gzip.compress(NOISE) * 2, "follows its end", id="two of them"),
        pytest.param(zlib.compress(b"{}")[2:-4], "incorrect header", id="deflate without zlib's frame"),
    ],
)
async def test_what_is_not_what_it_says_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(Problem) as refused:
        await inflated(body, LIMIT)
    assert refused.value.code is Code.BAD_REQUEST
    assert says in refused.value.detail


async def test_a_bomb_is_refused_when_it_reaches_the_limit() -> None:
    bomb = gzip.compress(bytes(100 * LIMIT))
    tracemalloc.start()
    try:
        with pytest.raises(Problem, match="larger than") as refused:
            await inflated(bomb, LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused.value.code is Code.TOO_LARGE
    assert peak < 3 * LIMIT


async def test_others_run_between_the_steps() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await inflated(gzip.compress(bytes(LIMIT)), LIMIT)
    ticking.cancel()
    assert ticks >= LIMIT // STEP_BYTES - 1


def ask(server: Server, body: bytes, **headers: str) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(server.infer(body, content_encoding="gzip", **headers))


GOOD = gzip.compress(orjson.dumps(request()))


async def test_a_compressed_request_is_answered_plain() -> None:
    async with serving() as server:
        answer = await ask(server, GOOD)
        assert (answer.status_code, answer.json()["outputs"][0]["data"]) == (200, [2.0, 4.0])
        assert "content-encoding" not in answer.headers
        deflated = zlib.compress(orjson.dumps(request()))
        assert (await server.infer(deflated, content_encoding="deflate")).status_code == 200
        assert (await ask(server, gzip.compress(GOOD))).json()["code"] == Code.INVALID_JSON
        assert (await ask(server, gzip.compress(bytes(10**7)))).json()["code"] == Code.TOO_LARGE


async def test_one_body_at_a_time_becomes_large_and_no_longer_than_its_deadline_allows() -> None:
    async with serving() as server, server.inference.inflating:
        answer = await ask(server, GOOD, x_request_timeout_ms="50")
        assert answer.json()["code"] == Code.DEADLINE
        assert "inflated" in answer.json()["detail"]


async def test_nothing_is_inflated_for_a_client_that_has_gone() -> None:
    model = FakeModel()
    async with serving(model) as server:
        async with server.inference.inflating:
            asking = ask(server, GOOD)
            await until(lambda: bool(server.inference.inflating._waiters))
            asking.cancel()
            await until(lambda: server.value("cancelled_total") == 1)
        assert (await ask(server, GOOD)).status_code == 200
        assert len(model.seen) == 1
