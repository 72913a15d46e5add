"""What one small prediction costs in Python, from its bytes to its answer's bytes, without a socket.

python -m benchmarks.bench_hot_path [--profile] [--batched]: best of many rounds, so that a busy machine matters little;
beside it the same uvicorn connection answering a constant over ASGI. Batched: CPU time for each request of 64 clients
who share the calls of a model that computes elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from benchmarks.server.models import tiny
from model_server import logs
from model_server.decide.batch_plan import NO_BATCHING, Limits
from model_server.dispatcher import Dispatcher
from model_server.executor import Done, Executor, Outcome, QuickExecutor, ThreadExecutor
from model_server.lifecycle import Lifecycle, Served
from model_server.models.base import Model
from model_server.models.loading import load, warm_up
from model_server.models.tensors import Tensors
from model_server.rest import http_server
from model_server.rest.connection import Connection
from model_server.rest.front import Front
from model_server.rest.infer import Inference
from model_server.telemetry import Telemetry

_BODY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[5.1,3.5,1.4,0.2]}]}'
_REQUEST = (
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost:8080\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n" % len(_BODY)
) + _BODY
_CLIENTS: Final = 64
_CALL_SECONDS: Final = 0.011
_ROW_SECONDS: Final = 0.00004
_BATCHED_SECONDS: Final = 3.0


class _Transport(asyncio.Transport):
    """Takes what is written and forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self.last = b""
        self.answers = 0
        self.answered: Callable[[], object] = lambda: None

    def write(self, data: Any) -> None:
        self.last = bytes(data)
        self.answers += self.last.startswith(b"HTTP/1.1 200")
        self.answered()

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def _connection(server: uvicorn.Server, kind: type[HttpToolsProtocol]) -> tuple[HttpToolsProtocol, _Transport]:
    if not server.config.loaded:
        server.config.load()
    connection = kind(server.config, server.server_state, {})
    transport = _Transport()
    connection.connection_made(transport)
    return connection, transport


def _server(model: Model, executor: Executor, max_queue: int, limits: Limits = NO_BATCHING) -> uvicorn.Server:
    telemetry, lifecycle = Telemetry(), Lifecycle("m")
    dispatcher = Dispatcher(executor, max_queue, telemetry, limits)
    lifecycle.loaded(Served(model.metadata, dispatcher, "0" * 64, "1"))
    front = Front(Inference(lifecycle, telemetry, 5.0, 2**20), lambda: None)  # type: ignore[arg-type, return-value]
    return http_server.make(front, 5.0)


async def _ours(onnx: Path) -> tuple[HttpToolsProtocol, _Transport]:
    model = load(onnx, "auto", "", 1, 2**30)
    warm_up(model)
    executor = QuickExecutor(model.predict, ThreadExecutor(model.predict, 1))
    connection, transport = _connection(_server(model, executor, 8), Connection)
    for _ in range(200):  # until it has proved quick
        await _ask(connection, transport)
    return connection, transport


class _Elsewhere:
    """An executor whose two slots take a while and no CPU time."""

    slots = 2

    def __init__(self) -> None:
        self.rows = 0
        self.calls = 0

    def submit(self, inputs: Tensors, done: Done) -> None:
        rows = next(iter(inputs.values())).shape[0]
        seconds = _CALL_SECONDS + _ROW_SECONDS * rows
        self.rows += rows
        self.calls += 1
        outcome = Outcome({"y": np.zeros((rows, tiny.CLASSES), np.float32)}, None, seconds)
        asyncio.get_running_loop().call_later(seconds, done, outcome)

    def stop(self) -> None:
        pass


async def _batched(onnx: Path, profile: cProfile.Profile | None) -> tuple[float, float]:
    """(microseconds of CPU a request, rows a call)."""
    executor = _Elsewhere()
    server = _server(load(onnx, "auto", "", 1, 2**30), executor, 128, Limits(max_rows=64))
    clients = [_connection(server, Connection) for _ in range(_CLIENTS)]
    loop = asyncio.get_running_loop()
    for connection, transport in clients:
        transport.answered = partial(loop.call_soon, connection.data_received, _REQUEST)
        loop.call_soon(connection.data_received, _REQUEST)
    await asyncio.sleep(1.0)  # the service time is known
    before, started = sum(transport.answers for _, transport in clients), time.process_time()
    if profile is not None:
        profile.enable()
    await asyncio.sleep(_BATCHED_SECONDS)
    if profile is not None:
        profile.disable()
    used, answers = time.process_time() - started, sum(transport.answers for _, transport in clients) - before
    for _, transport in clients:
        transport.answered = lambda: None
    return 1e6 * used / answers, executor.rows / executor.calls


async def _constant() -> tuple[HttpToolsProtocol, _Transport]:
    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
    return _connection(uvicorn.Server(config), HttpToolsProtocol)


async def _ask(connection: HttpToolsProtocol, transport: _Transport) -> None:
    answers = transport.answers
    connection.data_received(_REQUEST)
    while transport.answers == answers:  # noqa: ASYNC110 - an event would be measured too
        await asyncio.sleep(0)


async def _best(connection: HttpToolsProtocol, transport: _Transport, rounds: int, each: int) -> float:
    """Microseconds a request."""
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(each):
            await _ask(connection, transport)
        best = min(best, (time.perf_counter() - started) / each)
    return 1e6 * best


async def _main(options: argparse.Namespace) -> None:
    logs.configure("info")
    with tempfile.TemporaryDirectory() as directory:
        tiny.write(Path(directory))
        onnx = Path(directory) / "tiny.onnx"
        if options.batched:
            profile = cProfile.Profile() if options.profile else None
            cost, rows = await _batched(onnx, profile)
            print(f"ours, 64 clients of batches  {cost:6.1f} µs of CPU a request, {rows:.1f} rows a call")
            if profile is not None:
                pstats.Stats(profile).sort_stats("tottime").print_stats(45)
            return
        connection, transport = await _ours(onnx)
    if b" 200 OK" not in transport.last[:20]:
        sys.exit(f"not answered: {transport.last[:300]!r}")
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(lambda: [connection.data_received(_REQUEST) for _ in range(20_000)])
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)
        return
    constant = await _constant()
    print(f"ours, a tiny ONNX model      {await _best(connection, transport, 60, 500):6.1f} µs a request")
    print(f"uvicorn, a constant (ASGI)   {await _best(*constant, 60, 500):6.1f} µs a request")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--batched", action="store_true")
    uvloop.run(_main(parser.parse_args()))
