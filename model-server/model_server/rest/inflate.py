"""Bodies that came compressed, inflated in steps: within a bound, and never for long without letting others run."""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from model_server.errors import Code, Problem
from model_server.rest.wire import too_large

STEP_BYTES: Final = 128 * 1024
"""At most so many go in, and come out, at once: that takes less than a millisecond."""
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32  # the first bytes say which; HTTP's deflate is zlib


async def inflated(body: bytes | bytearray | memoryview, limit: int) -> bytearray:
    """`body` without its gzip or deflate coding. Problem: bad_request (it has none), too_large (over `limit` bytes)."""
    stream = zlib.decompressobj(_GZIP_OR_ZLIB)
    found = bytearray()
    data = memoryview(body)
    for start in range(0, len(data), STEP_BYTES):
        if stream.eof:
            raise _bad("something follows its end")
        piece = data[start : start + STEP_BYTES]
        while piece and not stream.eof:
            found += _step(stream, piece)
            if len(found) > limit:
                raise too_large(limit)
            piece = memoryview(stream.unconsumed_tail)
            await asyncio.sleep(0)
    if stream.unused_data:
        raise _bad("something follows its end")
    if not stream.eof:
        raise _bad("it ends too early")
    return found


def _step(stream: zlib._Decompress, piece: memoryview) -> bytes:
    try:
        return stream.decompress(piece, STEP_BYTES)
    except zlib.error as error:
        raise _bad(str(error)) from None


def _bad(why: str) -> Problem:
    return Problem(Code.BAD_REQUEST, f"the body is not compressed as its content-encoding says: {why}")
