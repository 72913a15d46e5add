"""Builders for tests of the model server: models, a server in memory, an executor under the test's control."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import numpy as np
import orjson

from model_server.decide.batch_plan import NO_BATCHING, Limits
from model_server.dispatcher import Dispatcher
from model_server.executor import Done, Outcome, ThreadExecutor
from model_server.lifecycle import Lifecycle, Served
from model_server.models.base import Metadata, Model
from model_server.models.tensors import Tensors, TensorSpec
from model_server.rest import http_server, management
from model_server.rest.front import Front
from model_server.rest.infer import Inference
from model_server.telemetry import Telemetry

NAME = "digits"
VERSION = "r-1"
DIGEST = "ab" * 32
JSON = {"content-type": "application/json"}


def spec(name: str, datatype: str, *shape: int) -> TensorSpec:
    """A TensorSpec in one line."""
    return TensorSpec(name, datatype, shape)


@dataclass
class FakeModel:
    """A model made of a function; by default it doubles FP32 rows of two."""

    metadata: Metadata = field(
        default_factory=lambda: Metadata("test", (spec("x", "FP32", -1, 2),), (spec("y", "FP32", -1, 2),))
    )
    function: Callable[[Tensors], Tensors] = lambda inputs: {"y": 2 * inputs["x"]}
    seen: list[Tensors] = field(default_factory=list)
    computes_only: bool = False

    def predict(self, inputs: Tensors) -> Tensors:
        """See Model."""
        self.seen.append(inputs)
        return self.function(inputs)


class ManualExecutor:
    """Runs nothing until the test says so; everything happens on the event loop."""

    def __init__(self, slots: int = 1) -> None:
        self.slots = slots
        self.pending: list[tuple[Tensors, Done]] = []

    def submit(self, inputs: Tensors, done: Done) -> None:
        """See Executor."""
        self.pending.append((inputs, done))

    def stop(self) -> None:
        """See Executor."""

    def finish(self, index: int = 0, seconds: float = 0.1, error: BaseException | None = None) -> None:
        """End the prediction that was started `index` places after the oldest: its outputs are its inputs."""
        inputs, done = self.pending.pop(index)
        done(Outcome(None if error else inputs, error, seconds))


@dataclass
class Server:
    """A server on a loopback port."""

    lifecycle: Lifecycle
    dispatcher: Dispatcher
    telemetry: Telemetry
    inference: Inference
    http: httpx.AsyncClient
    port: int
    web: http_server.Server
    front: Front

    async def infer(self, body: Any, **headers: str) -> httpx.Response:
        """POST a V2 request; `body` is sent as it is when it is bytes, as JSON otherwise."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(f"/v2/models/{NAME}/infer", content=content, headers={**JSON, **named})

    def value(self, name: str, **labels: str) -> float:
        """A metric's value now."""
        return self.telemetry.registry.get_sample_value(f"inflight_server_{name}", labels) or 0.0


@asynccontextmanager
async def serving(
    model: Model | None = None,
    *,
    loaded: bool = True,
    concurrency: int = 1,
    max_queue: int = 8,
    timeout_seconds: float = 5,
    max_body_bytes: int = 100_000,
    limits: Limits = NO_BATCHING,
) -> AsyncIterator[Server]:
    """A server with `model` (a FakeModel unless given), all of it but the process."""
    model = model or FakeModel()
    telemetry, lifecycle = Telemetry(), Lifecycle(NAME)
    executor = ThreadExecutor(model.predict, concurrency)
    dispatcher = Dispatcher(executor, max_queue, telemetry, limits)
    inference = Inference(lifecycle, telemetry, timeout_seconds, max_body_bytes)
    front = Front(inference, lambda: management.build(lifecycle))
    server = http_server.make(front, timeout_seconds)
    if loaded:
        lifecycle.loaded(Served(model.metadata, dispatcher, DIGEST, VERSION, partial(dispatcher.hangs, 0.05)))
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    running = asyncio.create_task(server.serve(sockets=[sock]))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        yield Server(lifecycle, dispatcher, telemetry, inference, http, port, server, front)
    server.should_exit = True
    await running
    executor.stop()


def tensor(data: Any, shape: list[int] | None = None, datatype: str = "FP32", name: str = "x") -> dict[str, Any]:
    """A V2 request tensor."""
    return {"name": name, "datatype": datatype, "shape": shape if shape is not None else [len(data)], "data": data}


def request(*tensors: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A V2 request; a FakeModel's one good row unless tensors are given."""
    return {"inputs": list(tensors) or [tensor([1.0, 2.0], [1, 2])], **members}


class Gate:
    """A model function that waits until it is let through, so that a test can hold a slot."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)

    def __call__(self, inputs: Tensors) -> Tensors:
        """Wait, then double the input."""
        self.entered.release()
        if not self.open.wait(10):
            raise TimeoutError("nobody opened the gate")
        return {"y": 2 * inputs["x"]}

    async def wait_entered(self) -> None:
        """Until a prediction is inside."""
        await asyncio.to_thread(self.entered.acquire, timeout=10)


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Wait for `condition`, AssertionError when it doesn't come true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition did not come true"
        await asyncio.sleep(0.002)


def rows(*values: Any) -> np.ndarray[Any, Any]:
    """FP32 rows."""
    return np.array(values, np.float32)
