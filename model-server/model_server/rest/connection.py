"""uvicorn's connection, with what it lacks: a deadline for a request's headers, and malformed HTTP told as a problem.

Every other part of HTTP/1.1 stays uvicorn's and httptools'.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from model_server.errors import Code, Problem
from model_server.rest import problems

HEADERS_TIMEOUT_SECONDS: Final = 10.0


class Connection(HttpToolsProtocol):
    """A connection that is closed when a request's headers take longer than HEADERS_TIMEOUT_SECONDS."""

    _headers_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for any more."""
        self._headers_arrived()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        if self._headers_timer is None:
            self._wait_for_headers()

    def on_headers_complete(self) -> None:
        """From here on the request's own deadline counts."""
        self._headers_arrived()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Malformed HTTP: uvicorn's words as problem+json, and the connection closed."""
        answer = problems.answer(Problem(Code.BAD_REQUEST, msg.rstrip(".")), "")
        lines: list[Any] = [b"HTTP/1.1 400 Bad Request\r\n"]
        for name, value in [*answer.headers, (b"content-length", b"%d" % len(answer.body)), (b"connection", b"close")]:
            lines += [name, b": ", value, b"\r\n"]
        self.transport.write(b"".join([*lines, b"\r\n", answer.body]))
        self.transport.close()

    def _wait_for_headers(self) -> None:
        self._headers_timer = self.loop.call_later(HEADERS_TIMEOUT_SECONDS, self.transport.close)

    def _headers_arrived(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None
