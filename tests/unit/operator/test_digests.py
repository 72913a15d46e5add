"""What is believed of a pod that is asked for its model's digest: very little."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from inflight_operator.observe import digests

SHA = "ab" * 32


@asynccontextmanager
async def answering(answer: Any) -> AsyncIterator[tuple[int, list[web.Request]]]:
    """(port, requests so far) of a pod on loopback that answers with `answer(request)`."""
    requests: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        requests.append(request)
        response: web.StreamResponse = await answer(request)
        return response

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1], requests
    finally:
        await runner.cleanup()


def says(body: Any, status: int = 200, **headers: str) -> Any:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response(body, status=status, headers=headers)

    return answer


async def test_a_pod_tells_the_digest_of_its_model() -> None:
    async with answering(says({"name": "m", "parameters": {"sha256": SHA}})) as (port, requests):
        assert await digests.ask("127.0.0.1", "dig.its", port) == SHA
    assert requests[0].path == "/v2/models/dig.its"
    assert not {"authorization", "cookie"} & {name.lower() for name in requests[0].headers}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(says({"error": "loading"}, 503), id="it is not ready"),
        pytest.param(says({}), id="another server, without a digest"),
        pytest.param(says([SHA]), id="something else"),
        pytest.param(says({"parameters": SHA}), id="in another place"),
        pytest.param(says({"parameters": {"sha256": 7}}), id="a number"),
        pytest.param(says({"parameters": {"sha256": SHA + "\n"}}), id="more than a digest"),
        pytest.param(says({"parameters": {"sha256": SHA}}, 302, location="/v2/models/m"), id="a redirect"),
        pytest.param(says({"parameters": {"sha256": SHA}, "x": "x" * 300_000}), id="far too much"),
    ],
)
async def test_nothing_else_is_taken_for_one(answer: Any) -> None:
    async with answering(answer) as (port, requests):
        assert await digests.ask("127.0.0.1", "m", port) is None
    assert len(requests) == 1


async def test_a_pod_that_never_ends_its_answer_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    monkeypatch.setattr(digests, "_SECONDS", 0.2)
    async with answering(drip) as (port, _):
        async with asyncio.timeout(1.5):
            assert await digests.ask("127.0.0.1", "m", port) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "not an address"])
async def test_a_pod_that_cannot_be_reached_is_no_failure(address: str) -> None:
    assert await digests.ask(address, "m", 1) is None
