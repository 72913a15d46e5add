"""Clients of W2: closed loops that wait, give up and come back, and an open loop that doesn't wait. Measures only."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from benchmarks.server.wire import Answer, Connection

REFUSALS: Final = (429, 503)
RETRY_SECONDS: Final = 0.1

now = time.monotonic
"""The models note their predictions by the same clock."""


class End(StrEnum):
    """How one request ended for the client."""

    ANSWER = "answer"
    REFUSAL = "refusal"
    TIMEOUT = "timeout"
    WRONG = "wrong"
    """An answer of 200 that isn't right."""
    ERROR = "error"
    """Any other status, or a connection that broke."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One request. Times in seconds of the monotonic clock."""

    identity: int
    sent: float
    ended: float
    end: End
    detail: str = ""


@dataclass(frozen=True)
class Talk:
    """What is asked: bytes for a request's number, and whether an answer is the right one."""

    port: int
    question: Callable[[int], bytes]
    right: Callable[[int, Answer], bool]
    timeout_seconds: float


@dataclass
class Load:
    """All that a run of clients tried. What was on its way at the end counts as nothing."""

    started: float = 0
    ended: float = 0
    cpu_seconds: float = 0
    """Of the clients themselves."""
    tried: list[Tried] = field(default_factory=list)


_identities: Iterator[int] = itertools.count(1)


async def closed(talk: Talk, clients: int, seconds: float, *, honour: bool) -> Load:
    """`clients` that send, wait for the end, send again; after a refusal when told (`honour`) or 0.1 s later."""
    load = _begin(seconds)

    async def client() -> None:
        connection = Connection()
        try:
            while True:
                connection, tried, answer = await _try(talk, connection)
                load.tried.append(tried)
                if tried.end in (End.REFUSAL, End.ERROR):
                    await asyncio.sleep(pause(answer, honour=honour))
        finally:
            connection.abort()

    return await _until_the_end(load, [asyncio.create_task(client()) for _ in range(clients)])


def pause(answer: Answer | None, *, honour: bool) -> float:
    """Seconds until a client asks again: what the exact header says, or the standard one, if it listens to them."""
    headers = answer.headers if honour and answer else {}
    for name, scale in (("x-inflight-retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) / scale)
    return RETRY_SECONDS


async def open_loop(talk: Talk, rate: float, seconds: float, seed: int) -> Load:
    """Requests at random times, `rate` a second on average, whatever becomes of them; nobody tries again."""
    load = _begin(seconds)
    idle: list[Connection] = []
    tasks: set[asyncio.Task[None]] = set()

    async def one() -> None:
        connection = idle.pop() if idle else Connection()
        try:
            connection, tried, _ = await _try(talk, connection)
            load.tried.append(tried)
            idle.append(connection)
        except asyncio.CancelledError:
            connection.abort()
            raise

    async def arrivals() -> None:
        chance = random.Random(seed)  # noqa: S311 (not for secrets)
        due = load.started
        while True:
            due += chance.expovariate(rate)
            await asyncio.sleep(max(0.0, due - now()))
            task = asyncio.create_task(one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    await _until_the_end(load, [asyncio.create_task(arrivals())])
    await _cancelled(list(tasks))
    for connection in idle:
        connection.abort()
    return load


def _begin(seconds: float) -> Load:
    started = now()
    return Load(started, started + seconds, -time.process_time())


async def _until_the_end(load: Load, tasks: list[asyncio.Task[None]]) -> Load:
    await asyncio.wait(tasks, timeout=load.ended - now(), return_when=asyncio.FIRST_EXCEPTION)
    load.ended = now()
    await _cancelled(tasks)
    load.cpu_seconds += time.process_time()
    return load


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


async def _try(talk: Talk, connection: Connection) -> tuple[Connection, Tried, Answer | None]:
    """One request on this connection, or on a new one; which connection it was, how it ended, what came back."""
    identity, sent = next(_identities), now()
    answer: Answer | None = None
    end, detail = End.ERROR, ""
    try:
        async with asyncio.timeout(talk.timeout_seconds):
            if not connection.open:
                connection = Connection()
                await connection.connect(talk.port)
            answer = await connection.ask(talk.question(identity))
        end, detail = _judge(talk, identity, answer)
    except TimeoutError:
        end = End.TIMEOUT
        connection.abort()
    except OSError as error:
        detail = str(error)[:80]
        connection.abort()
    except asyncio.CancelledError:
        connection.abort()
        raise
    return connection, Tried(identity, sent, now(), end, detail), answer


def _judge(talk: Talk, identity: int, answer: Answer) -> tuple[End, str]:
    if answer.status == 200:
        return (End.ANSWER, "") if talk.right(identity, answer) else (End.WRONG, answer.body[:80].decode("latin-1"))
    return (End.REFUSAL if answer.status in REFUSALS else End.ERROR), str(answer.status)
