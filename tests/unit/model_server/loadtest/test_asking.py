from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from yarl import URL

from model_server.loadtest import asking
from model_server.loadtest.record import End, Reply
from model_server.loadtest.target import Target

OUTPUTS = b'{"outputs": []}'
MEMBER = b'"outputs"'


@pytest.mark.parametrize(
    ("status", "headers", "body", "reply"),
    [
        pytest.param(200, {}, OUTPUTS, Reply(End.ANSWER), id="answer"),
        pytest.param(
            200,
            {"x-inflight-variant": "a", "x-inflight-revision": "r1", "x-inflight-cache": "hit"},
            OUTPUTS,
            Reply(End.ANSWER, variant="a", revision="r1", cached=True),
            id="answer-with-its-origin",
        ),
        pytest.param(
            200, {"x-inflight-cache": "coalesced"}, OUTPUTS, Reply(End.ANSWER, cached=True), id="shared-answer"
        ),
        pytest.param(200, {"x-inflight-cache": "miss"}, OUTPUTS, Reply(End.ANSWER), id="computed-answer"),
        pytest.param(200, {}, b'{"error": 1}', Reply(End.ERROR, '200 without "outputs"'), id="error-called-200"),
        pytest.param(301, {}, OUTPUTS, Reply(End.ERROR, "301"), id="redirect-is-no-answer"),
        pytest.param(422, {}, b'{"code": "bad_input"}', Reply(End.ERROR, "422 bad_input"), id="error-with-a-code"),
        pytest.param(500, {}, b"<html>", Reply(End.ERROR, "500"), id="error-without-a-code"),
        pytest.param(500, {}, b"[1]", Reply(End.ERROR, "500"), id="error-of-another-shape"),
        pytest.param(504, {}, b"", Reply(End.TIMEOUT, "504"), id="router-gave-up"),
        pytest.param(429, {}, b"", Reply(End.REFUSAL), id="refusal"),
        pytest.param(503, {"retry-after": "7"}, b"", Reply(End.REFUSAL, retry_after=7), id="refusal-with-seconds"),
        pytest.param(
            429,
            {"retry-after": "1", "x-inflight-retry-after-ms": "250"},
            b"",
            Reply(End.REFUSAL, retry_after=0.25),
            id="exact-header-goes-first",
        ),
        pytest.param(429, {"retry-after": "soon"}, b"", Reply(End.REFUSAL), id="refusal-with-nonsense"),
        pytest.param(
            429,
            {"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"},
            b"",
            Reply(End.REFUSAL, retry_after=0),
            id="past-date",
        ),
    ],
)
def test_only_a_right_status_with_a_right_body_is_an_answer(
    status: int, headers: dict[str, str], body: bytes, reply: Reply
) -> None:
    assert asking.judge(status, headers, body, MEMBER) == reply


def test_retry_after_may_be_a_date() -> None:
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    reply = asking.judge(503, {"retry-after": in_a_minute}, b"", b"")
    assert reply.retry_after == pytest.approx(60, abs=1.5)


@asynccontextmanager
async def asked(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[asking.Ask]:
    app = web.Application()
    app.router.add_post("/", handler)
    async with TestServer(app) as server, asking.session() as http:
        target = Target(server.make_url("/"), "POST", b"{}", {"content-type": "application/json"}, MEMBER)
        yield asking.asker(http, target, 0.2)


async def test_the_request_arrives_as_it_was_given() -> None:
    async def handler(request: web.Request) -> web.Response:
        assert await request.read() == b"{}"
        assert request.headers["accept-encoding"] == "identity"
        return web.Response(body=OUTPUTS, headers={"x-inflight-variant": "a"})

    async with asked(handler) as ask:
        assert await ask() == Reply(End.ANSWER, variant="a")


async def test_a_client_that_gives_up_closes_its_connection() -> None:
    left = asyncio.Event()

    async def handler(_: web.Request) -> web.Response:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:  # how aiohttp tells that the connection is closed
            left.set()
            raise
        return web.Response()

    async with asked(handler) as ask:
        assert await ask() == Reply(End.TIMEOUT, "client")
        await asyncio.wait_for(left.wait(), 1)


async def test_redirects_are_not_followed() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": "/elsewhere"})

    async with asked(handler) as ask:
        assert await ask() == Reply(End.ERROR, "302")


async def test_a_connection_that_breaks_is_an_error() -> None:
    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with asked(handler) as ask:
        assert await ask() == Reply(End.ERROR, "connection closed before the answer")


async def test_an_address_where_nobody_listens_is_an_error() -> None:
    async with asking.session() as http:
        reply = await asking.asker(http, Target(URL(f"http://127.0.0.1:{unused_port()}/"), "GET", None, {}), 1)()
    assert reply == Reply(End.ERROR, "can't connect: Connection refused")
