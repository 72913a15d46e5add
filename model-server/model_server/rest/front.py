"""The outermost ASGI application: request ids, closing connections while draining, the prediction paths.

Everything that is no prediction goes on to the management application (FastAPI).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model_server import logs
from model_server.errors import Code, Problem
from model_server.rest import problems
from model_server.rest.infer import Inference, Target, target
from model_server.rest.problems import Answer
from model_server.rest.wire import RequestHead
from model_server.telemetry import Telemetry

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Front:
    """See the module."""

    inference: Inference
    management: ASGIApp
    telemetry: Telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request."""
        head = RequestHead.of(scope)
        request_id = head.request_id()
        logs.request_id.set(request_id)  # uvicorn gives each request a context of its own
        extra = [(b"x-request-id", request_id.encode())]
        if self.inference.lifecycle.draining:
            extra.append((b"connection", b"close"))
        asked = target(scope["path"])
        if asked is None:
            await self._manage(scope, receive, send, request_id, extra)
            return
        answer = await self._predicted(asked, head, scope, receive, request_id)
        if answer.status == problems.STATUS[Code.CANCELLED]:
            self.telemetry.cancelled.inc()
        else:
            await _respond(send, answer, extra)

    async def _predicted(
        self, asked: Target, head: RequestHead, scope: Scope, receive: Receive, request_id: str
    ) -> Answer:
        started, arrived = time.monotonic(), asyncio.get_running_loop().time()
        try:
            if scope["method"] != "POST":
                raise Problem(Code.METHOD_NOT_ALLOWED, "predictions are asked for with POST")
            answer = await self.inference.answer(asked, head, receive, arrived)
        except Problem as problem:
            answer = problems.answer(problem, request_id)
        except Exception as error:
            _log.error("request failed", path=scope["path"], exc_info=error)
            answer = problems.answer(Problem(Code.INTERNAL, "the server failed on this request"), request_id)
        seconds = time.monotonic() - started
        self.telemetry.request(answer.status, seconds)
        _log.debug("answered", path=scope["path"], status=answer.status, seconds=round(seconds, 6))
        return answer

    async def _manage(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, extra: problems.Headers
    ) -> None:
        async def send_with_extra(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id
        try:
            await self.management(scope, receive, send_with_extra)
        except Exception as error:  # Starlette has answered 500 and raises again
            _log.error("request failed", path=scope["path"], exc_info=error)


async def _respond(send: Send, answer: Answer, extra: problems.Headers) -> None:
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body)), *extra]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
