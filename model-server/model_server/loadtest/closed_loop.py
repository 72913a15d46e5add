"""Closed-loop clients: each sends, waits for the end, and sends again. Measures; sums up and prints nothing."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from model_server.loadtest.plan import Plan
from model_server.loadtest.record import CLIENT, End, Record, Reply, Stage

_ERROR_PAUSE_SECONDS: Final = 0.1
"""After an error, and after a refusal that doesn't say when to come back: a client that spins helps nobody."""
_TICK_SECONDS: Final = 0.02

now = time.perf_counter

Ask = Callable[[], Awaitable[Reply]]


def begin(plan: Plan, clients: int) -> Record:
    """The empty record of a stage that begins now."""
    started = now()
    return Record(clients, started, started + plan.duration_seconds, plan.within_seconds)


async def run(ask: Ask, plan: Plan, record: Record, stop: asyncio.Event) -> Stage:
    """One stage; `stop` ends it early, without its requests on the way, and what was measured counts."""
    used = time.process_time()
    ticking = asyncio.create_task(_tick(record.lags))
    clients = [asyncio.create_task(_client(number, ask, plan, record)) for number in range(record.clients)]
    try:
        await _until(stop, clients)
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
    return record.stage(now(), time.process_time() - used)


async def settled(ask: Ask, stage: Stage, plan: Plan, stop: asyncio.Event) -> Stage:
    """The stage with how long the server needed afterwards until it answered a lone client in time."""
    started = now()

    async def lone_client() -> None:
        while True:
            reply = await ask()
            if reply.end is End.ANSWER:
                return
            await asyncio.sleep(_pause(reply, plan.retry_seconds))

    with suppress(TimeoutError):
        async with asyncio.timeout(plan.settle_seconds):
            await _until(stop, [asyncio.create_task(lone_client())])
            if not stop.is_set():
                return replace(stage, recovery_seconds=round(now() - started, 3))
    return stage


async def _client(number: int, ask: Ask, plan: Plan, record: Record) -> None:
    wanted = sent = now()
    while sent < record.ends:
        reply = await ask()
        ended = now()
        record.add(number, reply, wanted, sent, ended)
        if reply.end is End.ANSWER:
            wanted = ended
        pause = _pause(reply, plan.retry_seconds)
        if pause:
            await asyncio.sleep(min(pause, max(record.ends - ended, 0)))
        sent = now()


def _pause(reply: Reply, retry_seconds: float | None) -> float:
    """Seconds before the next request: none after an answer, and none after a timeout that was waited for."""
    match reply.end:
        case End.REFUSAL:
            asked = _ERROR_PAUSE_SECONDS if reply.retry_after is None else reply.retry_after
            return asked if retry_seconds is None else retry_seconds
        case End.ANSWER:
            return 0.0
        case _:
            return 0.0 if reply.why == CLIENT else _ERROR_PAUSE_SECONDS


async def _until(stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Until all tasks are done or `stop` is set; none is left running, and what one raised is raised."""
    stopping = asyncio.create_task(stop.wait())
    working = asyncio.gather(*tasks)
    either: tuple[asyncio.Future[Any], ...] = (stopping, working)
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (stopping, *tasks):
            task.cancel()
        await asyncio.gather(stopping, working, *tasks, return_exceptions=True)


async def _tick(lags: array[float]) -> None:
    """Note how late this loop's own timer is, for ever."""
    while True:
        due = now() + _TICK_SECONDS
        await asyncio.sleep(_TICK_SECONDS)
        lags.append(max(now() - due, 0.0))
