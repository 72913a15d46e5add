"""A stand-in for a model server's pod on loopback: answers who it is and what it was asked, and can wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class Pod:
    """`delay` seconds before each answer; `requests` counts those received, `open` those not yet answered (`most` at
    once), `met` those that found another one open; `last` are the headers of the last one, and its path and body. It
    `refuses` with a status and a code; `left` are those whose client has gone."""

    name: str
    port: int = 0
    address: str = "127.0.0.1"
    delay: float = 0.0
    lose_connection: bool = False
    refuses: tuple[int, str] | None = None
    requests: int = 0
    open: int = 0
    met: int = 0
    most: int = 0
    left: int = 0
    last: dict[str, str] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.met += self.open > 0
        self.open += 1
        self.most = max(self.most, self.open)
        self.arrived.set()
        try:
            body = await request.read()
            self.last = {
                **{name.lower(): value for name, value in request.headers.items()},
                "path": request.path_qs,
                "body": body.decode(errors="replace"),
            }
            if self.lose_connection:
                assert request.transport is not None
                request.transport.abort()
            await self._work(request)
            if self.refuses:
                return self._refusal(*self.refuses)
        finally:
            self.open -= 1
        said = {"pod": self.name, "path": request.path_qs, "bytes": len(body), "headers": dict(request.headers)}
        spoofed = {"x-inflight-variant": "forged", "x-inflight-revision": "forged", "x-envoy-forged": "1"}
        return web.json_response(said, headers=spoofed)

    async def _work(self, request: web.Request) -> None:
        """Take as long as it takes, or until the client has gone."""
        end = time.monotonic() + self.delay
        while (rest := end - time.monotonic()) > 0:
            await asyncio.sleep(min(rest, 0.05))
            if request.transport is None or request.transport.is_closing():
                self.left += 1
                return

    @staticmethod
    def _refusal(status: int, code: str) -> web.Response:
        """As our server says it; without a code as somebody else may."""
        hints = {"Retry-After": "1", "x-inflight-retry-after-ms": "50"} if code else {}
        return web.json_response({"code": code}, status=status, headers=hints)


@asynccontextmanager
async def pod(name: str, *, delay: float = 0.0, port: int = 0, address: str = "127.0.0.1") -> AsyncIterator[Pod]:
    """Serve until the block ends; open requests are then cut off, as when a pod is killed."""
    this = Pod(name, delay=delay, address=address)
    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.router.add_route("*", "/{path:.*}", this.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, address, port)
    await site.start()
    this.port = runner.addresses[0][1]
    try:
        yield this
    finally:
        await runner.cleanup()
