"""Clients on a loop whose time is made up: an answer after half a second comes at once, and after 0.5 exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from model_server.loadtest import closed_loop
from model_server.loadtest.closed_loop import Ask
from model_server.loadtest.plan import Plan
from model_server.loadtest.record import End, Reply, Stage

pytestmark = pytest.mark.looptime

PLAN = Plan((1,), timeout_seconds=2, duration_seconds=10, within_seconds=0.5, retry_seconds=None, settle_seconds=30)
ANSWER, TIMEOUT, ERROR = Reply(End.ANSWER), Reply(End.TIMEOUT, "client"), Reply(End.ERROR, "500")


@pytest.fixture(autouse=True)
async def made_up_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_loop, "now", asyncio.get_running_loop().time)


def refusal(after: float | None) -> Reply:
    return Reply(End.REFUSAL, retry_after=after)


def replies(*each: tuple[float, Reply]) -> Ask:
    """The server: (seconds, reply) in turn, over and over."""
    asked = 0

    async def ask() -> Reply:
        nonlocal asked
        seconds, reply = each[asked % len(each)]
        asked += 1
        await asyncio.sleep(seconds)
        return reply

    return ask


async def measured(ask: Ask, clients: int = 1, plan: Plan = PLAN, stop: asyncio.Event | None = None) -> Stage:
    return await closed_loop.run(ask, plan, closed_loop.begin(plan, clients), stop or asyncio.Event())


async def test_each_client_asks_again_at_once_after_an_answer() -> None:
    stage = await measured(replies((0.5, ANSWER)), clients=3)
    assert (stage.requests, stage.answers, stage.answers_per_second) == (60, 60, 6.0)
    assert stage.response_ms.p50 == pytest.approx(500)


@pytest.mark.parametrize(
    ("reply", "retry", "requests"),
    [
        pytest.param(refusal(2.5), None, 4, id="as-long-as-the-refusal-says"),
        pytest.param(refusal(2.5), 0.5, 20, id="as-long-as-it-was-told"),
        pytest.param(refusal(None), None, 100, id="a-tenth-when-nobody-says"),
        pytest.param(ERROR, None, 100, id="a-tenth-after-an-error"),
        pytest.param(Reply(End.TIMEOUT, "504"), None, 100, id="a-tenth-after-a-router-gave-up"),
    ],
)
async def test_a_client_waits_before_it_comes_back(reply: Reply, retry: float | None, requests: int) -> None:
    stage = await measured(replies((0, reply)), plan=replace(PLAN, retry_seconds=retry))
    assert stage.requests == pytest.approx(requests, abs=1)


async def test_a_client_that_timed_out_asks_again_at_once() -> None:
    stage = await measured(replies((2, TIMEOUT)))
    assert (stage.requests, dict(stage.timeouts), stage.timeout_ratio) == (5, {"client": 5}, 1.0)
    assert stage.response_ms.p50 is None


async def test_the_wait_until_an_answer_counts_refusals_and_pauses() -> None:
    stage = await measured(replies((0, refusal(1)), (0, refusal(1)), (0.5, ANSWER)))
    assert stage.response_ms.p50 == pytest.approx(500)
    assert stage.until_answered_ms.p50 == pytest.approx(2500)


async def test_goodput_leaves_out_answers_that_took_longer_than_the_goal() -> None:
    stage = await measured(replies((0.4, ANSWER), (0.6, ANSWER)))
    assert (stage.answers_per_second, stage.goodput_per_second) == (2.0, 1.0)


async def test_answers_on_their_way_at_the_end_count_in_everything_but_the_rate() -> None:
    stage = await measured(replies((3, ANSWER)))
    assert (stage.answers, stage.answers_per_second, stage.seconds) == (4, 0.3, 10)


async def test_a_long_pause_ends_with_the_stage() -> None:
    started = asyncio.get_running_loop().time()
    await measured(replies((0, refusal(3600))))
    assert asyncio.get_running_loop().time() - started == pytest.approx(10, abs=0.1)


async def test_stopping_ends_the_stage_with_what_was_measured_and_leaves_nothing_running() -> None:
    stop, before = asyncio.Event(), asyncio.all_tasks()
    asyncio.get_running_loop().call_later(4.2, stop.set)
    stage = await measured(replies((0.5, ANSWER)), clients=2, stop=stop)
    assert (stage.answers, stage.seconds) == (16, pytest.approx(4.2, abs=0.01))
    assert asyncio.all_tasks() == before


async def test_a_bug_in_a_client_is_not_hidden() -> None:
    async def ask() -> Reply:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await measured(ask, clients=2)


async def test_clients_that_never_had_an_answer_are_counted() -> None:
    served = asyncio.Lock()

    async def ask() -> Reply:  # the first who comes keeps the server
        if served.locked():
            await asyncio.sleep(1)
            return refusal(0)
        async with served:
            await asyncio.sleep(0.5)
            return ANSWER

    assert (await measured(ask, clients=4)).unanswered_clients == 3


async def settled(ask: Ask, stop: Callable[[asyncio.Event], object] = lambda _: None) -> float | None:
    stage, event = await measured(replies((1, ANSWER))), asyncio.Event()
    stop(event)
    return (await closed_loop.settled(ask, stage, PLAN, event)).recovery_seconds


async def test_recovery_lasts_until_a_lone_client_is_answered() -> None:
    assert await settled(replies((2, TIMEOUT), (2, TIMEOUT), (0.5, ANSWER))) == pytest.approx(4.5)


async def test_a_server_that_does_not_recover_is_not_waited_for_longer_than_told() -> None:
    started = asyncio.get_running_loop().time()
    assert await settled(replies((2, TIMEOUT))) is None
    assert asyncio.get_running_loop().time() - started == pytest.approx(10 + 30, abs=0.1)


async def test_stopping_ends_the_wait_for_recovery() -> None:
    assert await settled(replies((2, TIMEOUT)), lambda event: event.set()) is None
