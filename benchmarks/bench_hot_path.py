"""What one small prediction costs in Python, from its bytes to its answer's bytes, without a socket.

python -m benchmarks.bench_hot_path [--profile]: best of many rounds, so that a busy machine matters little; beside it
the same uvicorn connection answering a constant over ASGI.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from model_server import logs
from model_server.dispatcher import Dispatcher
from model_server.executor import QuickExecutor, ThreadExecutor
from model_server.lifecycle import Lifecycle, Served
from model_server.models.loading import load, warm_up
from model_server.rest import http_server
from model_server.rest.connection import Connection
from model_server.rest.front import Front
from model_server.rest.infer import Inference
from model_server.telemetry import Telemetry

_BODY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1.5,2.5]}]}'
_REQUEST = (
    b"POST /v2/models/m/infer HTTP/1.1\r\nHost: localhost:8080\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n" % len(_BODY)
) + _BODY


class _Transport(asyncio.Transport):
    """Takes what is written and forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self.last = b""
        self.answers = 0

    def write(self, data: Any) -> None:
        self.last = bytes(data)
        self.answers += self.last.startswith(b"HTTP/1.1")

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
    server.config.load()
    connection = kind(server.config, server.server_state, {})
    transport = _Transport()
    connection.connection_made(transport)
    return connection, transport


async def _ours(onnx: Path) -> tuple[HttpToolsProtocol, _Transport]:
    model = load(onnx, "auto", "", 1, 2**30)
    warm_up(model)
    telemetry, lifecycle = Telemetry(), Lifecycle("m")
    executor = QuickExecutor(model.predict, ThreadExecutor(model.predict, 1))
    dispatcher = Dispatcher(executor, 8, telemetry)
    lifecycle.loaded(Served(model.metadata, dispatcher, "0" * 64, "1"))
    front = Front(Inference(lifecycle, telemetry, 5.0, 2**20), lambda: None)  # type: ignore[arg-type, return-value]
    server = http_server.make(front, 5.0)
    connection, transport = _connection(server, Connection)
    for _ in range(200):  # until it has proved quick
        await _ask(connection, transport)
    return connection, transport


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
    connection, transport = await _ours(options.model)
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
    parser.add_argument("model", type=Path, help="an ONNX file with one input x [-1, 2] FP32")
    parser.add_argument("--profile", action="store_true")
    uvloop.run(_main(parser.parse_args()))
