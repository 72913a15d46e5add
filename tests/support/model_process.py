"""Runs the real model server as a process of its own, for component tests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

import ports

ROOT = Path(__file__).parents[2] / "model-server"
_LAUNCH = "from model_server.__main__ import main; main()"
SECONDS = 30
"""A patient machine is a busy one."""


@dataclass
class ServerProcess:
    """A running `model-server`; its log is read all the time, so that it never blocks on a full pipe."""

    process: subprocess.Popen[bytes]
    log: list[dict[str, Any]] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)

    def wait_for(self, event: str) -> dict[str, Any]:
        """The first log line with this event."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            for line in list(self.log):
                if line.get("event") == event:
                    return line
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"no {event!r} in the log: {self.raw[-20:]}")

    @property
    def url(self) -> str:
        """Of the prediction API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """Of the prediction API."""
        return int(self.wait_for("listening")["port"])

    @property
    def metrics_url(self) -> str:
        """Of the metrics."""
        return f"http://127.0.0.1:{self.wait_for('listening')['metrics_port']}/metrics"

    def metric(self, name: str) -> float:
        """A sample's value now; `name` with labels as it is exposed."""
        for line in httpx.get(self.metrics_url).text.splitlines():
            if line.rpartition(" ")[0] == f"inflight_server_{name}":
                return float(line.rpartition(" ")[2])
        return 0.0

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """The exit code, when it has ended by itself."""
        return self.process.wait(SECONDS)


@contextmanager
def started(*arguments: str, before: str = "", ready: bool = True, **environ: str) -> Iterator[ServerProcess]:
    """`model-server serve ARGUMENTS` with INFLIGHT_* variables; `before` is Python that runs first."""
    variables = {f"INFLIGHT_{name}": value for name, value in environ.items()}
    ports: Mapping[str, str] = {
        "INFLIGHT_PORT": "0",
        "INFLIGHT_METRICS_PORT": "0",
        "INFLIGHT_GRPC_PORT": "0",
        "INFLIGHT_DRAIN_DELAY_SECONDS": "0",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("INFLIGHT_")}
    process = subprocess.Popen(
        [sys.executable, "-c", f"{before}\n{_LAUNCH}", "serve", *arguments],
        env={**inherited, **ports, **variables, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    server = ServerProcess(process)
    reader = threading.Thread(target=_read, args=(server,))
    reader.start()
    try:
        if ready:
            server.wait_for("ready")
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        if process.stderr:
            process.stderr.close()


def _read(server: ServerProcess) -> None:
    for line in server.process.stderr or ():
        server.raw.append(line.decode(errors="replace"))
        try:
            server.log.append(json.loads(line))
        except ValueError:
            continue


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def spoken(port: int, sent: bytes, seconds: float = 2) -> bytes:
    """Everything that comes back on a connection on which `sent` was sent, until it is closed or quiet."""
    answer = b""
    async with connected(port) as (reader, writer):
        writer.write(sent)
        try:
            async with asyncio.timeout(seconds):
                while part := await reader.read(65536):
                    answer += part
        except (TimeoutError, ConnectionError):
            pass
    return answer


async def one_answer(reader: asyncio.StreamReader) -> int:
    """Read one answer whole, or fail when the connection ends before; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
    return int(head.split()[1])


def free_port() -> str:
    """That nobody listens on now, as an argument."""
    return str(ports.free_port())


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A raw HTTP/1.1 POST of JSON."""
    lines = [f"POST {path} HTTP/1.1", "Host: server", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body
