"""GET /metrics on a port of its own, so that the prediction port never shows it. A few lines of HTTP, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import socket
import sys
from typing import Final

from model_server.telemetry import Telemetry

_SECONDS: Final = 5.0
_MAX_HEAD_BYTES: Final = 16 * 1024
_EXPOSITION: Final = "model_server.exposition"


async def serve(telemetry: Telemetry, sock: socket.socket) -> asyncio.Server:
    """Answer scrapes on `sock`, one request per connection, each within 5 seconds."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                if _EXPOSITION not in sys.modules:  # what the first scrape imports must not hold up predictions
                    await asyncio.to_thread(importlib.import_module, _EXPOSITION)
                writer.write(_answer(telemetry, head))
                await writer.drain()
        writer.close()

    return await asyncio.start_server(handle, sock=sock, limit=_MAX_HEAD_BYTES)


def _answer(telemetry: Telemetry, head: bytes) -> bytes:
    request, *headers = head.decode("latin-1").split("\r\n")
    method, _, rest = request.partition(" ")
    if method != "GET" or rest.partition(" ")[0].partition("?")[0] != "/metrics":
        return _response("404 Not Found", "text/plain; charset=utf-8", b"GET /metrics is all there is\n")
    accept = next((line.partition(":")[2].strip() for line in headers if line.lower().startswith("accept:")), "")
    from model_server.exposition import encoded  # noqa: PLC0415

    return _response("200 OK", *encoded(telemetry.registry, accept))


def _response(status: str, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
