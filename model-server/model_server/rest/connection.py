"""uvicorn's connection, with what it lacks: bounds on a request's head, on a body nobody wants, and problem+json.

Every other part of HTTP/1.1 stays uvicorn's and httptools'.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from model_server.errors import Code, Problem
from model_server.rest import problems

HEAD_SECONDS: Final = 10.0
"""For a request's line and headers, from the connection's start or their first byte."""
HEAD_BYTES: Final = 64 * 1024
LINGER_SECONDS: Final = 5.0
"""For the rest of a body whose request was answered before it was all there (refused, too large)."""


class Connection(HttpToolsProtocol):
    """A connection on which every wait for the client ends."""

    _timer: asyncio.TimerHandle | None = None
    _head_bytes: int | None = 0
    """Bytes received of a head that isn't complete; None while no head is awaited."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._close_after(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and give up on a head that has become too long."""
        super().data_received(data)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("the request line and headers are too long")

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        if self._timer is None:
            self._close_after(HEAD_SECONDS)
            self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """From here on the request's own deadline counts."""
        self._stop_waiting()
        self._head_bytes = None
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            raise ValueError  # the parser turns it into an error of its own: answered 400
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Answered; what is still to come of the body is read and dropped, but not for ever."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            self._close_after(LINGER_SECONDS)

    def on_message_complete(self) -> None:
        """The body is all there; if its request was answered already, the connection is idle now."""
        super().on_message_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._stop_waiting()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def send_400_response(self, msg: str) -> None:
        """Malformed HTTP: problem+json, and the connection closed."""
        answer = problems.answer(Problem(Code.BAD_REQUEST, msg.rstrip(".")), "")
        lines: list[Any] = [b"HTTP/1.1 400 Bad Request\r\n"]
        for name, value in [*answer.headers, (b"content-length", b"%d" % len(answer.body)), (b"connection", b"close")]:
            lines += [name, b": ", value, b"\r\n"]
        self.transport.write(b"".join([*lines, b"\r\n", answer.body]))
        self.transport.close()

    def _close_after(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
