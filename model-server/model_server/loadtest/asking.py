"""One request over HTTP and the judgement of its answer. Never repeats, follows or repairs anything."""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp

from model_server.loadtest.closed_loop import Ask
from model_server.loadtest.record import CLIENT, End, Reply
from model_server.loadtest.target import Target

REFUSALS: Final = (429, 503)
GIVEN_UP: Final = (408, 504)
"""Statuses of servers and routers for which the time was up before the client's."""


NOT_COMPUTED: Final = ("hit", "coalesced")
"""Values of x-inflight-cache: the answer was kept, or is that of an equal request of the same moment."""


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """As many kept-alive connections as there are clients; every client has its own timeout."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        headers={"user-agent": "inflight-loadtest", "accept-encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as http:
        yield http


def asker(http: aiohttp.ClientSession, target: Target, timeout_seconds: float) -> Ask:
    """Asks `target` once a call. A client that gives up closes its connection."""

    async def ask() -> Reply:
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                http.request(
                    target.method, target.url, data=target.body, headers=target.headers, allow_redirects=False
                ) as response,
            ):
                content = await response.read()
        except TimeoutError:
            return Reply(End.TIMEOUT, CLIENT)
        except (aiohttp.ClientError, OSError) as error:
            return Reply(End.ERROR, _broken(error))
        return judge(response.status, response.headers, content, target.member)

    return ask


def judge(status: int, headers: Mapping[str, str], content: bytes, member: bytes) -> Reply:
    """How a complete answer counts; `headers` are looked up by lower-case name."""
    if status in REFUSALS:
        return Reply(End.REFUSAL, retry_after=_retry_after(headers))
    if status in GIVEN_UP:
        return Reply(End.TIMEOUT, str(status))
    if not 200 <= status < 300:
        return Reply(End.ERROR, f"{status} {_code(content)}".strip())
    if member not in content:
        return Reply(End.ERROR, f"{status} without {member.decode()}")
    return Reply(
        End.ANSWER,
        variant=headers.get("x-inflight-variant", ""),
        revision=headers.get("x-inflight-revision", ""),
        cached=headers.get("x-inflight-cache") in NOT_COMPUTED,
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; the exact header goes before the standard one, which knows whole seconds and dates."""
    exact, standard = headers.get("x-inflight-retry-after-ms", ""), headers.get("retry-after", "")
    if exact.isdecimal():
        return int(exact[:12]) / 1000
    if standard.isdecimal():
        return float(standard[:12])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(standard).timestamp() - time.time())
    except ValueError:
        return None


def _code(content: bytes) -> str:
    """The stable `code` of an error's body, if it has one."""
    try:
        code = json.loads(content)["code"]
    except (ValueError, KeyError, TypeError):
        return ""
    return code[:40] if isinstance(code, str) else ""


def _broken(error: Exception) -> str:
    """What became of a request without an answer, in words that are the same for every such request."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"can't connect: {os.strerror(error.errno) if error.errno else type(error.os_error).__name__}"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError):
        return "connection closed before the answer"
    return type(error).__name__
