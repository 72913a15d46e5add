"""One load test from its first request to its last line: prints each stage's figures as soon as it is over."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from yarl import URL

from model_server.loadtest import asking, closed_loop, progress, target
from model_server.loadtest.options import to_plan
from model_server.loadtest.plan import LoadTestError, Plan
from model_server.loadtest.record import End, Stage
from model_server.loadtest.report import Result, Table, heading, notes
from model_server.loadtest.target import Target

_PASSING: Final = ("500", "502")
"""Statuses of a server that fails now and then; any other error of the first request will be every request's."""


async def measure(options: argparse.Namespace) -> Result:
    """Every stage. Ctrl-C ends it early. LoadTestError when there is nothing that could be measured."""
    plan = to_plan(options)
    with _interruptible() as stop:
        asked = await _target(options, plan)
        result = _empty(options, plan, asked)
        table = Table(goodput=plan.within_seconds < plan.timeout_seconds, recovery=plan.settle_seconds > 0)
        print(f"{heading(result)}\n\n{table.head()}", flush=True)
        stages: list[Stage] = []
        for number, clients in enumerate(plan.clients, 1):
            stages.append(await _stage(plan, asked, clients, f"[{number}/{len(plan.clients)}]", stop))
            print(table.row(stages[-1]), flush=True)
            if stop.is_set():
                break
        result = replace(result, stages=tuple(stages), interrupted=stop.is_set())
    print("\n".join(["", *notes(result), *(["ended by Ctrl-C"] if result.interrupted else [])]), flush=True)
    return result


async def _target(options: argparse.Namespace, plan: Plan) -> Target:
    """What to ask, tried once: a wrong URL or body is told now, not counted ten thousand times."""
    deadline = None if options.no_deadline else max(round(1000 * plan.timeout_seconds), 1)
    async with asking.session() as http:
        asked = await target.prepare(http, URL(options.url), options.body, dict(options.header), deadline)
        reply = await asking.asker(http, asked, plan.timeout_seconds)()
    if reply.end is End.ERROR and not reply.why.startswith(_PASSING):
        raise LoadTestError(f"{asked.method} {asked.url}: {reply.why}; mend the URL, --body or --header")
    return asked


async def _stage(plan: Plan, asked: Target, clients: int, position: str, stop: asyncio.Event) -> Stage:
    async with asking.session() as http:  # every stage makes its own connections
        ask = asking.asker(http, asked, plan.timeout_seconds)
        record = closed_loop.begin(plan, clients)
        async with progress.shown(sys.stderr, record, position):
            stage = await closed_loop.run(ask, plan, record, stop)
    if not plan.settle_seconds or stop.is_set():
        return stage
    async with asking.session() as http:
        progress.say(sys.stderr, f"{position} waiting until the server answers a lone client")
        stage = await closed_loop.settled(asking.asker(http, asked, plan.timeout_seconds), stage, plan, stop)
        progress.say(sys.stderr, "")
    return stage


def _empty(options: argparse.Namespace, plan: Plan, asked: Target) -> Result:
    return Result(
        label=options.label or asked.url.authority,
        url=str(asked.url),
        timeout_seconds=plan.timeout_seconds,
        within_seconds=plan.within_seconds,
        duration_seconds=plan.duration_seconds,
        retry="when it says" if plan.retry_seconds is None else f"after {plan.retry_seconds:g} s",
        settle_seconds=plan.settle_seconds,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        interrupted=False,
        stages=(),
    )


@contextmanager
def _interruptible() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C sets; a second Ctrl-C ends the process as usual."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def interrupted() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        stop.set()

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield stop
    finally:
        loop.remove_signal_handler(signal.SIGINT)
