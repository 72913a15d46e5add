"""W4: how much more memory one request takes at its peak than the server held before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from benchmarks.server.samples import Sample
from benchmarks.server.session import Question, Session
from benchmarks.server.starting import Server
from benchmarks.server.wire import Connection
from benchmarks.server.works.throughput import questions

ONE: Final = "1 request"
_REQUESTS: Final = 3
_SETTLING_SECONDS: Final = 1.0
_MEBIBYTE: Final = 2**20


async def measure(server: Server, session: Session, number: int) -> AsyncIterator[Sample]:
    """Peaks of all processes together, as the kernel notes them, to the tensor's bytes; the worst of three requests.

    The first answer was to a third of the tensor, so that what is loaded once is loaded.
    """
    whole = questions("W4", session)[0]
    third = Question(whole.x[:1], whole.wanted[:1])
    message = server.talk("W4").message(whole.x)
    async with session.serving(server, "W4", third) as running:
        peaks = []
        for _ in range(_REQUESTS):
            await asyncio.sleep(_SETTLING_SECONDS)
            before = running.tree.start_peak()
            connection = Connection()
            await connection.connect(running.port)
            answer = await connection.ask(message)
            connection.abort()
            if answer.status != 200 or not running.dialect.matches(answer.body, whole.wanted):
                raise RuntimeError(f"a wrong answer: {answer.status} {answer.body[:200]!r}")
            peaks.append(running.tree.peak_above(before))
        yield Sample("W4", server.name, ONE, number, {"peak_of_payload": max(peaks) * _MEBIBYTE / whole.x.nbytes})
