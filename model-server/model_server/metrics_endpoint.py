"""GET /metrics on a port of its own, so that the prediction port never shows it. A few lines of HTTP, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

_SECONDS: Final = 5.0
_MAX_HEAD_BYTES: Final = 16 * 1024


async def serve(registry: CollectorRegistry, sock: socket.socket) -> asyncio.Server:
    """Answer scrapes on `sock`, one request per connection, each within 5 seconds."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_answer(registry, head))
                await writer.drain()
        writer.close()

    return await asyncio.start_server(handle, sock=sock, limit=_MAX_HEAD_BYTES)


def _answer(registry: CollectorRegistry, head: bytes) -> bytes:
    request, *headers = head.decode("latin-1").split("\r\n")
    method, _, rest = request.partition(" ")
    if method != "GET" or rest.partition(" ")[0].partition("?")[0] != "/metrics":
        return _response("404 Not Found", "text/plain; charset=utf-8", b"GET /metrics is all there is\n")
    accept = next((line.partition(":")[2].strip() for line in headers if line.lower().startswith("accept:")), "")
    encode, content_type = choose_encoder(accept)
    return _response("200 OK", content_type, encode(registry))


def _response(status: str, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
