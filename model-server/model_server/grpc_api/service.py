"""The six calls of the protocol. Predictions go to the same queue as those over HTTP, by the same rules."""

from __future__ import annotations

import asyncio
import time
from operator import methodcaller
from typing import Any, Final, NoReturn

import grpc
import structlog
from google.protobuf.message import Message
from grpc.aio import ServicerContext

from model_server import __version__, logs
from model_server.cache.caching import Caching
from model_server.cache.control import Use
from model_server.dispatcher import Dispatcher
from model_server.errors import Code, Problem, first_line
from model_server.grpc_api import codec, framing
from model_server.grpc_api.messages import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from model_server.lifecycle import Served
from model_server.models.tensors import Tensors, TensorSpec
from model_server.queues import Priority
from model_server.rest import problems
from model_server.rest.infer import Inference
from model_server.rest.wire import RequestHead
from model_server.tracing import Trace

Context = ServicerContext[Any, Any]
Trailers = tuple[tuple[str, str], ...]
SERVICE: Final = "inference.GRPCInferenceService"
_log = structlog.get_logger()

_STATUS: Final = {
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""By the status that the same problem has over HTTP; other 4xx are the argument's fault."""
_CLOCKS_DIFFER: Final = 0.01
"""Seconds by which gRPC may see a deadline pass before the event loop does."""


class Service:
    """See the module."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def handler(self) -> grpc.GenericRpcHandler:
        """For a server."""
        methods = {
            "ServerLive": _method(self.server_live, ServerLiveRequest),
            "ServerReady": _method(self.server_ready, ServerReadyRequest),
            "ModelReady": _method(self.model_ready, ModelReadyRequest),
            "ServerMetadata": _method(self.server_metadata, ServerMetadataRequest),
            "ModelMetadata": _method(self.model_metadata, ModelMetadataRequest),
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self.infer),  # bytes: see framing
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def server_live(self, _asked: ServerLiveRequest, _context: Context) -> ServerLiveResponse:
        """The process answers."""
        return ServerLiveResponse(live=True)

    async def server_ready(self, _asked: ServerReadyRequest, _context: Context) -> ServerReadyResponse:
        """The model is loaded and warm, and no stop was asked for."""
        return ServerReadyResponse(ready=self._inference.lifecycle.ready)

    async def server_metadata(self, _asked: ServerMetadataRequest, _context: Context) -> ServerMetadataResponse:
        """Name and version of this server."""
        return ServerMetadataResponse(name="inflight-model-server", version=__version__)

    async def model_ready(self, asked: ModelReadyRequest, context: Context) -> ModelReadyResponse:
        """Whether this model takes predictions."""
        lifecycle = self._inference.lifecycle
        try:
            lifecycle.known(asked.name, asked.version or None)
        except Problem as problem:
            await _abort(context, problem, ())
        return ModelReadyResponse(ready=lifecycle.ready)

    async def model_metadata(self, asked: ModelMetadataRequest, context: Context) -> ModelMetadataResponse:
        """Inputs, outputs and platform of the loaded model."""
        try:
            served = self._inference.lifecycle.get(asked.name, asked.version or None)
        except Problem as problem:
            await _abort(context, problem, ())
        answer = ModelMetadataResponse(name=asked.name, versions=[served.version], platform=served.metadata.platform)
        answer.inputs.extend(map(_tensor, served.metadata.inputs))
        answer.outputs.extend(map(_tensor, served.metadata.outputs))
        return answer

    async def infer(self, body: bytes, context: Context) -> bytes:
        """One prediction."""
        return await _Call(self._inference, context).answer(body)


def _method(call: Any, asked: type[Message]) -> grpc.RpcMethodHandler[Any, Any]:
    return grpc.unary_unary_rpc_method_handler(
        call, request_deserializer=asked.FromString, response_serializer=methodcaller("SerializeToString")
    )


def _tensor(spec: TensorSpec) -> ModelMetadataResponse.TensorMetadata:
    return ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)


class _Call:
    """One prediction from its message to its answer; what infer.Call is over HTTP."""

    def __init__(self, inference: Inference, context: Context) -> None:
        self._inference = inference
        self._context = context
        self._arrived = time.monotonic()
        self._head = RequestHead.of(
            (name.encode(), value if isinstance(value, bytes) else value.encode())
            for name, value in context.invocation_metadata() or ()
        )
        self._request_id = self._head.request_id()
        self._deadline = 0.0
        self._use = Use.asked(self._head.fields.get(b"cache-control"))
        self._trace: Trace | None = None
        if inference.tracing is not None:
            self._trace = inference.tracing.begin(f"{SERVICE}/ModelInfer", self._head.fields)

    async def answer(self, body: bytes) -> bytes:
        """The answer's bytes; everything else ends the call with a status."""
        logs.request_id.set(self._request_id)  # each call has a task, so a context, of its own
        trailers: Trailers = (("x-request-id", self._request_id),)
        try:
            answer = await self._predict(body)
        except Problem as problem:
            self._told(problems.STATUS[problem.code])
            await _abort(self._context, problem, trailers)
        except asyncio.CancelledError:
            self._left()
            raise
        self._told(200)
        if self._use.result is not None:
            trailers = (*trailers, ("x-inflight-cache", self._use.result.value))
        self._context.set_trailing_metadata(trailers)
        return answer

    async def _predict(self, body: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        timeout = self._head.timeout_seconds(self._inference.timeout_seconds)
        remaining = self._context.time_remaining()
        self._deadline = loop.time() + (timeout if remaining is None else min(timeout, remaining))
        lifecycle, priority = self._inference.lifecycle, self._head.priority()
        if lifecycle.served is not None:  # refused before it is parsed, if at all
            lifecycle.served.dispatcher.check(self._deadline, priority)
        message, raw = framing.parse(body)
        served = lifecycle.get(message.model_name, message.model_version or None)
        request, inputs = codec.decode(message, raw, served.metadata)
        if self._trace is not None:
            self._trace.entered()
        outputs = await self._computed(inputs, served.dispatcher, priority)
        return self._encoded(request, outputs, served)

    async def _computed(self, inputs: Tensors, queue: Dispatcher | Caching, priority: Priority) -> Tensors:
        done: asyncio.Future[Tensors] = asyncio.get_running_loop().create_future()

        def settle(outputs: Tensors | None, error: BaseException | None) -> None:
            if done.done():
                return
            if outputs is not None:
                done.set_result(outputs)
            else:
                done.set_exception(error or RuntimeError("neither outputs nor an error"))

        if isinstance(queue, Caching):
            ticket = queue.enter(inputs, self._deadline, priority, settle, self._use)
        else:
            ticket = queue.enter(inputs, self._deadline, priority, settle)
        try:
            return await done
        except asyncio.CancelledError:
            queue.leave(ticket)
            raise
        except Problem:
            raise
        except Exception as error:
            _log.warning("prediction failed", error=first_line(error), exc_info=error)
            text = "the model failed on this request; the server's log says why, by request_id"
            raise Problem(Code.MODEL_ERROR, text) from None
        finally:
            if self._trace is not None:
                self._trace.predicted(ticket.started or None)

    def _encoded(self, request: codec.Request, outputs: Tensors, served: Served) -> bytes:
        try:
            return codec.encode(request, outputs, served)
        except Problem:
            raise
        except Exception as error:
            _log.error("request failed", exc_info=error)
            raise Problem(Code.INTERNAL, "the server failed on this request") from None

    def _left(self) -> None:
        """Nobody waits for the answer: the client has gone, or its deadline has passed, which gRPC tells it."""
        if asyncio.get_running_loop().time() >= self._deadline - _CLOCKS_DIFFER:
            self._told(problems.STATUS[Code.DEADLINE])
            return
        self._inference.telemetry.cancelled.inc()
        self._told(problems.STATUS[Code.CANCELLED])

    def _told(self, status: int) -> None:
        trace_id = ""
        if self._trace is not None:
            trace_id = self._trace.trace_id
            names = {"inflight.model": self._inference.lifecycle.name, "inflight.request_id": self._request_id}
            self._trace.end(status, **names, **{"inflight.cache": self._use.result or ""})
        seconds = time.monotonic() - self._arrived
        self._inference.telemetry.request(status, seconds, self._request_id, trace_id)
        if logs.verbose:
            _log.debug("answered", status=status, seconds=round(seconds, 6))


async def _abort(context: Context, problem: Problem, trailers: Trailers) -> NoReturn:
    status = problems.STATUS[problem.code]
    code = _STATUS.get(status, grpc.StatusCode.INVALID_ARGUMENT if status < 500 else grpc.StatusCode.INTERNAL)
    found = [*trailers, ("x-inflight-code", problem.code.value), ("x-inflight-refused-by", "server")]
    if problem.retry_after_ms is not None:
        # The first is what gRPC's own retries wait for.
        found += [
            (name, str(problem.retry_after_ms)) for name in ("grpc-retry-pushback-ms", "x-inflight-retry-after-ms")
        ]
    await context.abort(code, problem.detail, tuple(found))
