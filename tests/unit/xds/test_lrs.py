"""Load reports are asked for at the same instant of all routers, and a stream that ends is heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from envoy.service.load_stats.v3 import lrs_pb2

from inflight_operator.xds.load import REPORT_SECONDS, Load
from inflight_operator.xds.lrs import ASK, LoadReporting

pytestmark = [pytest.mark.looptime, pytest.mark.asyncio]

CONTEXT: Any = None


class Router:
    """A router's side of the stream: says hello, counts when it is asked, reports when told to."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.asked: list[float] = []
        self._messages: asyncio.Queue[lrs_pb2.LoadStatsRequest | None] = asyncio.Queue()

    async def requests(self) -> AsyncIterator[lrs_pb2.LoadStatsRequest]:
        yield lrs_pb2.LoadStatsRequest(node={"id": self.node})
        while (message := await self._messages.get()) is not None:
            yield message

    async def connect(self, service: LoadReporting, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        async for answer in service.stream_load_stats(self.requests(), CONTEXT):
            assert answer == ASK
            self.asked.append(asyncio.get_running_loop().time())

    def report(self) -> None:
        self._messages.put_nowait(lrs_pb2.LoadStatsRequest())

    def leave(self) -> None:
        self._messages.put_nowait(None)


def told() -> tuple[Load, LoadReporting]:
    load = Load(asyncio.get_running_loop().time, lambda: ())
    return load, LoadReporting(load)


async def test_routers_are_asked_at_the_same_instants_whenever_they_came() -> None:
    _, service = told()
    first, second = Router("first"), Router("second")
    async with asyncio.TaskGroup() as group:
        group.create_task(first.connect(service))
        group.create_task(second.connect(service, after=0.6))
        await asyncio.sleep(3)
        first.leave()
        second.leave()
    common = [at for at in first.asked if at > 0.75]
    assert len(common) >= 2 / REPORT_SECONDS
    assert second.asked[1:] == pytest.approx([at for at in first.asked if at > second.asked[0]], abs=0.002)


async def test_a_report_is_due_before_the_router_is_asked_again() -> None:
    assert 0 < ASK.load_reporting_interval.ToNanoseconds() / 1e9 < REPORT_SECONDS


async def test_reports_count_and_a_router_that_leaves_is_forgotten() -> None:
    load, service = told()
    router = Router("first")
    async with asyncio.TaskGroup() as group:
        group.create_task(router.connect(service))
        await asyncio.sleep(0.1)
        assert load.in_flight("demo", "a") is None, "greeted only"
        router.report()
        await asyncio.sleep(0.1)
        assert load.in_flight("demo", "a") == 0
        router.leave()
    assert load.in_flight("demo", "a") is None


async def test_a_stream_that_ends_before_its_greeting_is_nobody() -> None:
    async def nothing() -> AsyncIterator[lrs_pb2.LoadStatsRequest]:
        for message in ():
            yield message

    _, service = told()
    assert [answer async for answer in service.stream_load_stats(nothing(), CONTEXT)] == []
