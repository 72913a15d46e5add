"""One line on a terminal that says how far the test is; nothing where there is no terminal."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TextIO

from model_server.loadtest.closed_loop import now
from model_server.loadtest.record import Record

_EVERY_SECONDS: Final = 0.2
_BAR: Final = 24
_CLEAR: Final = "\r\x1b[K"


def bar(fraction: float, width: int = _BAR) -> str:
    """A bar of `width` characters, filled to `fraction`."""
    filled = round(max(0.0, min(fraction, 1.0)) * width)
    return "━" * filled + "╌" * (width - filled)


def line(record: Record, position: str, at: float) -> str:
    """How the stage stands at the time `at`."""
    lasts, gone = record.ends - record.starts, max(at - record.starts, 1e-9)
    parts = [
        f"{min(gone, lasts):.0f} of {lasts:.0f} s",
        f"{record.in_time / min(gone, lasts):,.1f} answers/s",
        *(
            f"{count:,} {word}"
            for count, word in (
                (len(record.refused), "refused"),
                (record.timeouts.total(), "timed out"),
                (record.errors.total(), "errors"),
            )
            if count
        ),
    ]
    return f"{position} {record.clients} clients {bar(gone / lasts)} {' · '.join(parts)}"


@asynccontextmanager
async def shown(stream: TextIO, record: Record, position: str) -> AsyncIterator[None]:
    """Keep the line up to date while the block runs, and clear it after."""
    if not stream.isatty():
        yield
        return

    async def draw() -> None:
        while True:
            width = shutil.get_terminal_size().columns - 1
            stream.write(_CLEAR + line(record, position, now())[:width])
            stream.flush()
            await asyncio.sleep(_EVERY_SECONDS)

    drawing = asyncio.create_task(draw())
    try:
        yield
    finally:
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)
        stream.write(_CLEAR)
        stream.flush()


def say(stream: TextIO, text: str) -> None:
    """Show `text` in place of the line, until the next one."""
    if stream.isatty():
        stream.write(_CLEAR + text)
        stream.flush()
