"""The ASGI application for everything that is no prediction: request ids, closing connections while draining.

Probes are answered here. The management application (FastAPI) is made when it is first asked: importing it takes a
third of a server's start and of its memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from model_server import logs
from model_server.errors import Problem
from model_server.rest import health, problems
from model_server.rest.infer import Inference
from model_server.rest.wire import RequestHead

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = structlog.get_logger()


class Giving(Protocol):
    """Gives connections to another process of this server (see model_server.fronts)."""

    def wanted(self) -> bool:
        """Whether one should be given away now."""

    def give(self, fd: int) -> bool:
        """Give away the one with this file descriptor, which stays the caller's to close; whether it was taken."""


@dataclass(slots=True)
class Front:
    """See the module. Its connections find the way to predictions here."""

    inference: Inference
    make_management: Callable[[], ASGIApp]
    giving: Giving | None = field(default=None, init=False)
    """While other processes serve connections too."""
    overfull: bool = field(default=False, init=False)
    """Whether connections are to be given away between two requests: looked at after each."""
    _management: ASGIApp | None = field(default=None, init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request."""
        request_id = RequestHead.of(scope["headers"]).request_id()
        logs.request_id.set(request_id)  # uvicorn gives each request a context of its own
        extra = [(b"x-request-id", request_id.encode())]
        if self.inference.lifecycle.draining:
            extra.append((b"connection", b"close"))

        async def send_with_extra(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id
        try:
            if scope["method"] != "GET" or not await self._probed(scope["path"], request_id, send_with_extra):
                if self._management is None:
                    self._management = self.make_management()
                await self._management(scope, receive, send_with_extra)
        except Exception as error:  # Starlette has answered 500 and raises again
            _log.error("request failed", path=scope["path"], exc_info=error)

    async def _probed(self, path: str, request_id: str, send: Send) -> bool:
        """Answer a probe; False for any other path."""
        try:
            body = health.answer(path, self.inference.lifecycle)
            if body is None:
                return False
            answer = problems.Answer(200, body)
        except Problem as problem:
            answer = problems.answer(problem, request_id)
        headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
        return True
