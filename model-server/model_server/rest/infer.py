"""One prediction request: head, body, queue, model, answer. Decides nothing itself: every step may end in a Problem.

It knows no connection: whoever holds one makes a Call, feeds it, and is given the answer, perhaps at once.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

import structlog

from model_server import logs
from model_server.cache.caching import Caching
from model_server.cache.control import Result, Use
from model_server.dispatcher import Dispatcher
from model_server.errors import Code, Problem, first_line
from model_server.lifecycle import Lifecycle, Served
from model_server.models.tensors import Tensors
from model_server.queues import Ticket
from model_server.rest import problems, v1, v2
from model_server.rest.inflate import inflated
from model_server.rest.problems import Answer
from model_server.rest.wire import RequestHead
from model_server.telemetry import Telemetry
from model_server.tracing import Trace, Tracing

_V2: Final = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_V1: Final = re.compile(r"/v1/models/([^/:]+):predict")
_PATHS: Final = {2: "/v2/models/{model}/infer", 1: "/v1/models/{model}:predict"}
_log = structlog.get_logger()

Reply = Callable[["Call", Answer], None]


@dataclass(frozen=True, slots=True)
class Target:
    """What a prediction path names."""

    name: str
    version: str | None
    protocol: int


@functools.lru_cache(maxsize=64)  # nearly all requests of a server have the same one
def target(url: bytes) -> Target | None:
    """The model that `url` asks a prediction of; None for any other path."""
    path = url.partition(b"?")[0].decode("latin-1")
    if "%" in path:
        path = unquote(path)
    if match := _V2.fullmatch(path):
        return Target(match[1], match[2], 2)
    if match := _V1.fullmatch(path):
        return Target(match[1], None, 1)
    return None


@dataclass(frozen=True, slots=True)
class Inference:
    """What prediction requests need of the server."""

    lifecycle: Lifecycle
    telemetry: Telemetry
    timeout_seconds: float
    max_body_bytes: int
    inflating: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """One compressed body at a time becomes large."""
    tracing: Tracing | None = None


class Call:
    """One prediction request from its head to its answer, which is given exactly once.

    Feed it: `begin`, then `body`, or `fail` when none comes; `leave` when the client has gone.
    """

    __slots__ = (
        "_arrived",
        "_asked",
        "_head",
        "_inference",
        "_inflating",
        "_reply",
        "_request",
        "_served",
        "_ticket",
        "_trace",
        "_use",
        "deadline",
        "request_id",
    )

    def __init__(self, inference: Inference, asked: Target, head: RequestHead) -> None:
        self._inference = inference
        self._asked = asked
        self._head = head
        self._reply: Reply | None = None
        self._arrived = time.monotonic()
        self._ticket: Ticket | None = None
        self._served: Served
        self._request: v1.Request | v2.Request
        self._inflating: asyncio.Task[None] | None = None
        self._use: Use | None = None
        """Of the cache of answers, if there is one."""
        self._trace: Trace | None = None
        if inference.tracing is not None:
            self._trace = inference.tracing.begin(f"POST {_PATHS[asked.protocol]}", head.fields)
        self.request_id = head.request_id()
        self.deadline = 0.0
        """On the loop's clock."""

    def begin(self, method: str, reply: Reply) -> None:
        """The head has come: refuse what need not be read. `reply` is called with the answer, perhaps here."""
        self._reply = reply
        try:
            self._check(method)
        except Problem as problem:
            self.fail(problem)

    @property
    def answered(self) -> bool:
        """Whether the reply was made, or nobody wants it any more."""
        return self._reply is None

    def _check(self, method: str) -> None:
        if method != "POST":
            raise Problem(Code.METHOD_NOT_ALLOWED, "predictions are asked for with POST")
        self._head.check_media_type(raw=self._asked.protocol == 2)
        self._served = self._inference.lifecycle.get(self._asked.name, self._asked.version)
        timeout = self._head.timeout_seconds(self._inference.timeout_seconds)
        self.deadline = asyncio.get_running_loop().time() + timeout
        self._head.check_length(self._inference.max_body_bytes)
        self._served.dispatcher.check(self.deadline, self._head.priority())

    def body(self, body: v2.Body) -> None:
        """The whole body has come: parse it, and run or queue the prediction."""
        if self._head.compressed:
            self._inflating = asyncio.get_running_loop().create_task(self._inflate(body))
        else:
            self._predict(body)

    async def _inflate(self, body: v2.Body) -> None:
        try:
            async with asyncio.timeout_at(self.deadline), self._inference.inflating:
                body = await inflated(body, self._inference.max_body_bytes)
        except TimeoutError:
            self.fail(Problem(Code.DEADLINE, "the deadline passed while the body was inflated"))
        except Problem as problem:
            self.fail(problem)
        except Exception as error:
            self._broke(error)
        else:
            self._predict(body)

    def _predict(self, body: v2.Body) -> None:
        token = logs.request_id.set(self.request_id)
        try:
            inputs = self._decoded(body)
            if self._trace is not None:
                self._trace.entered()
            ticket = self._enter(self._served.dispatcher, inputs)
            if self._reply is not None:
                self._ticket = ticket
        except Problem as problem:
            self.fail(problem)
        except Exception as error:
            self._broke(error)
        finally:
            logs.request_id.reset(token)

    def _enter(self, queue: Dispatcher | Caching, inputs: Tensors) -> Ticket:
        priority = self._head.priority()
        if not isinstance(queue, Caching):
            return queue.enter(inputs, self.deadline, priority, self._done)
        self._use = Use.asked(self._head.fields.get(b"cache-control"))
        return queue.enter(inputs, self.deadline, priority, self._done, self._use)

    def leave(self) -> None:
        """The client has gone: nothing is computed for it any more, and nothing answered."""
        if self._reply is None:
            return
        self._reply = None
        if self._inflating is not None:
            self._inflating.cancel()
        if self._ticket is not None:
            self._served.dispatcher.leave(self._ticket)
        self._inference.telemetry.cancelled.inc()
        self._told(problems.STATUS[Code.CANCELLED])

    def fail(self, problem: Problem) -> None:
        """Answer with a problem."""
        self._answer(problems.answer(problem, self.request_id))

    def _decoded(self, body: v2.Body) -> Tensors:
        metadata = self._served.metadata
        if self._asked.protocol == 1:
            self._request = v1.decode(body, metadata)
        else:
            self._request = v2.decode(body, metadata, self._head.json_length())
        return self._request.inputs

    def _done(self, outputs: Tensors | None, error: BaseException | None) -> None:
        """Called in whichever request's callback ended the prediction: log lines are told whose they are."""
        if self._trace is not None:
            self._trace.predicted(self._started())
        try:
            if outputs is None:
                raise error or RuntimeError("neither outputs nor an error")
            answer = self._encoded(outputs)
            if self._use is not None and self._use.result is not None:
                found = (b"x-inflight-cache", self._use.result.encode())
                answer = answer._replace(headers=(*answer.headers, found))
            self._answer(answer)
        except Problem as problem:
            self.fail(problem)
        except Exception as failure:
            if failure is error:
                _log.warning(
                    "prediction failed", request_id=self.request_id, error=first_line(failure), exc_info=failure
                )
                text = "the model failed on this request; the server's log says why, by request_id"
                self.fail(Problem(Code.MODEL_ERROR, text))
            else:
                self._broke(failure)

    def _encoded(self, outputs: Tensors) -> Answer:
        if isinstance(self._request, v1.Request):
            return v1.encode(self._request, outputs)
        return v2.encode(self._request, outputs, self._asked.name, self._served)

    def _broke(self, error: Exception) -> None:
        _log.error("request failed", request_id=self.request_id, exc_info=error)
        self.fail(Problem(Code.INTERNAL, "the server failed on this request"))

    def _answer(self, answer: Answer) -> None:
        reply, self._reply = self._reply, None
        if reply is not None:
            self._told(answer.status)
            reply(self, answer)

    def _started(self) -> float | None:
        """When the prediction began, on time.monotonic's clock."""
        if self._ticket is not None:
            return self._ticket.started or None
        hit = self._use is not None and self._use.result is Result.HIT
        return None if hit else 0.0  # it ran before there was a ticket: there was nothing to wait for

    def _told(self, status: int) -> None:
        seconds = time.monotonic() - self._arrived
        trace_id = ""
        if self._trace is not None:
            trace_id = self._trace.trace_id
            cache = self._use.result if self._use is not None and self._use.result is not None else ""
            names = {"inflight.model": self._asked.name, "inflight.request_id": self.request_id}
            self._trace.end(status, **names, **{"inflight.cache": cache})
        self._inference.telemetry.request(status, seconds, self.request_id, trace_id)
        if logs.verbose:
            shown = round(seconds, 6)
            _log.debug("answered", request_id=self.request_id, model=self._asked.name, status=status, seconds=shown)
