"""What others answer over HTTP, of which no more is read than makes sense."""

from __future__ import annotations

import aiohttp


async def body_of(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The whole body, or ValueError when it is longer than `most` bytes."""
    body = b""
    async for chunk in answer.content.iter_chunked(65536):
        body += chunk
        if len(body) > most:
            raise ValueError("the answer is too long")
    return body
