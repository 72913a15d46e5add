"""A model server's gRPC side in memory, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import numpy as np

from model_server.dispatcher import Dispatcher
from model_server.executor import Executor, ThreadExecutor
from model_server.grpc_api import server
from model_server.grpc_api.messages import ModelInferRequest, ModelInferResponse
from model_server.lifecycle import Lifecycle, Served
from model_server.models.base import Model
from model_server.rest.infer import Inference
from model_server.telemetry import Telemetry
from model_serving import DIGEST, NAME, VERSION, FakeModel

_SERVICE = "/inference.GRPCInferenceService"


@dataclass
class GrpcServer:
    """A gRPC server on a loopback port, and a channel to it."""

    lifecycle: Lifecycle
    dispatcher: Dispatcher
    telemetry: Telemetry
    running: server.Server
    channel: grpc.aio.Channel

    def call(self, method: str, message: Any = b"", **options: Any) -> grpc.aio.UnaryUnaryCall[Any, bytes]:
        """Call a method; `message` is sent as it is when it is bytes."""
        body = message if isinstance(message, bytes) else message.SerializeToString()
        return self.channel.unary_unary(f"{_SERVICE}/{method}")(body, **options)

    def infer(self, message: Any = None, **options: Any) -> grpc.aio.UnaryUnaryCall[Any, bytes]:
        """Ask a prediction: of a FakeModel's one good row unless a message is given."""
        return self.call("ModelInfer", request() if message is None else message, **options)

    def value(self, name: str, **labels: str) -> float:
        """A metric's value now."""
        return self.telemetry.registry.get_sample_value(f"inflight_server_{name}", labels) or 0.0


@asynccontextmanager
async def grpc_serving(
    model: Model | None = None,
    *,
    executor: Executor | None = None,
    loaded: bool = True,
    max_queue: int = 8,
    timeout_seconds: float = 5,
    max_body_bytes: int = 100_000,
) -> AsyncIterator[GrpcServer]:
    """A server with `model` (a FakeModel unless given)."""
    model = model or FakeModel()
    telemetry, lifecycle = Telemetry(), Lifecycle(NAME)
    executor = executor or ThreadExecutor(model.predict, 1)
    dispatcher = Dispatcher(executor, max_queue, telemetry)
    if loaded:
        lifecycle.loaded(Served(model.metadata, dispatcher, DIGEST, VERSION))
    inference = Inference(lifecycle, telemetry, timeout_seconds, max_body_bytes)
    running = await server.start(inference, "127.0.0.1", 0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
            yield GrpcServer(lifecycle, dispatcher, telemetry, running, channel)
    finally:
        await running.stop(0)
        executor.stop()


def request(data: Sequence[float] = (1.0, 2.0), *, raw: bool = True, **fields: Any) -> ModelInferRequest:
    """A request of FP32 rows of two."""
    message = ModelInferRequest(model_name=NAME, **fields)
    tensor = message.inputs.add(name="x", datatype="FP32", shape=[len(data) // 2, 2])
    if raw:
        message.raw_input_contents.append(np.array(data, "<f4").tobytes())
    else:
        tensor.contents.fp32_contents.extend(data)
    return message


def answered(body: bytes) -> list[float]:
    """The elements of a raw answer's first output."""
    answer = ModelInferResponse.FromString(body)
    return np.frombuffer(answer.raw_output_contents[0], "<f4").tolist()  # type: ignore[no-any-return]
