"""Demand, as real routers report it."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, defaultdict
from contextlib import AsyncExitStack

import pytest

from inflight_operator.xds.load import Report, Window
from inflight_operator.xds.model import Endpoint
from route_specs import backend, route_spec
from router_rig import Rig

NAME = "digits-stable-aaaa1111"


async def test_constant_requests_are_reported_as_they_are(rig: Rig) -> None:
    """Eight clients that always wait: demand is eight once the window is full, and never more."""
    pods = [await rig.pod("a", delay=0.1), await rig.pod("b", delay=0.1)]
    spec = route_spec(backend(ports=[pod.port for pod in pods]))
    await rig.start(spec)
    await rig.router()
    in_flight: list[float] = []
    async with rig.traffic(clients=8) as seen:
        for _ in range(40):
            await asyncio.sleep(0.25)
            demand = rig.plane.load.in_flight("demo", NAME)
            if demand is not None:
                in_flight.append(demand)
        by_endpoint = rig.plane.load.in_flight_by_endpoint("demo", NAME)
    assert set(seen) == {"200 a", "200 b"}
    assert max(in_flight) <= 8
    assert in_flight[-1] == pytest.approx(8, rel=0.1)  # a client needs a moment between two requests
    assert by_endpoint is not None
    assert set(by_endpoint) == {Endpoint("127.0.0.1", pod.port) for pod in pods}
    assert sum(by_endpoint.values()) == pytest.approx(in_flight[-1], rel=0.1)  # of fewer samples


async def test_a_client_that_changes_routers_is_counted_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen failing with routers that each keep their own time: half of the time both see it, or neither."""
    pod = await rig.pod(delay=0.1)
    await rig.start(route_spec(backend(ports=[pod.port])))
    load, heard = rig.plane.load, defaultdict[Window, list[int]](list)
    keep = load.report

    def record(window: Window, report: Report) -> None:
        heard[window].append(report.total.get(f"demo/{NAME}", 0))
        keep(window, report)

    monkeypatch.setattr(load, "report", record)
    await rig.router("first")
    await rig.router("second")

    async def client() -> None:
        while True:
            await rig.ask(headers={"Connection": "close"})  # the next connection is the other router's, perhaps

    task = asyncio.create_task(client())
    try:
        await asyncio.sleep(9)
    finally:
        task.cancel()
    first, second = (counts[-28:] for counts in heard.values())
    assert min(sum(first), sum(second)) > 0, "it went to both"
    together = Counter(a + b for a, b in zip(first, second, strict=True))
    assert together[1] >= 22
    assert load.in_flight("demo", NAME) == pytest.approx(0.95, abs=0.1)


async def test_requests_in_all_routers_count_and_a_missing_router_is_unknown(rig: Rig) -> None:
    pod = await rig.pod(delay=30)
    await rig.start(route_spec(backend(ports=[pod.port], timeout=60_000)))
    first = await rig.router("first")
    load = rig.plane.load
    assert load.in_flight("demo", NAME) is None  # connected, but not a whole interval yet
    await rig.until(lambda: load.in_flight("demo", NAME) == 0.0)
    await rig.router("second")
    await rig.until(lambda: rig.plane.routers == {"first", "second"})
    assert load.in_flight("demo", NAME) is None  # the second has just come
    async with AsyncExitStack() as stack:
        for _ in range(6):
            task = asyncio.create_task(rig.ask())
            stack.callback(task.cancel)
        await rig.until(lambda: pod.open == 6)
        six = pytest.approx(6.0, rel=0.05)  # the first sample may have seen only some of them
        await rig.until(lambda: load.in_flight("demo", NAME) == six, 12)
        assert load.in_flight("demo", "unheard-of") == 0.0
        load.expect(3)
        assert load.in_flight("demo", NAME) is None
        assert load.in_flight_by_endpoint("demo", NAME) is None
        load.expect(2)
        assert load.in_flight("demo", NAME) == six
        first.process.kill()
        await rig.until(lambda: rig.plane.routers == {"second"})
        assert load.in_flight("demo", NAME) is None  # two are still expected
        load.expect(None)
        await rig.until(lambda: load.in_flight("demo", NAME) is not None)


async def test_a_silent_router_is_unknown_and_its_return_is_heard(rig: Rig) -> None:
    await rig.start(route_spec(backend()))
    router = await rig.router()

    async def hears(demand: float | None) -> None:
        await rig.until(lambda: rig.plane.load.in_flight("demo", NAME) == demand, 6)
        assert rig.plane.load.in_flight("demo", NAME) == demand

    await hears(0.0)
    router.process.send_signal(signal.SIGSTOP)
    await hears(None)
    router.process.send_signal(signal.SIGCONT)
    await hears(0.0)
