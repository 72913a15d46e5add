"""Where predictions run: threads, and the event loop for those that have proved quick."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from model_server.executor import QUICK_SECONDS, Executor, QuickExecutor, ThreadExecutor, Work

LOOP, THREAD = "on the loop", "on a thread"


async def ran(executor: Executor, call: Callable[[], Any] = lambda: None, size: int | None = 100) -> Any:
    """What `call` answered and where it ran."""
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    loop_thread = threading.get_ident()

    def where() -> tuple[Any, str]:
        return call(), LOOP if threading.get_ident() == loop_thread else THREAD

    executor.submit(Work(where, size), lambda result, error, _seconds: ended.set_result(error or result))
    return await ended


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), StopIteration()], ids=lambda e: type(e).__name__)
async def test_a_thread_survives_whatever_a_model_raises(error: BaseException) -> None:
    threads = ThreadExecutor(1)

    def fail() -> None:
        raise error

    assert await ran(threads, fail) is error
    assert await ran(threads, lambda: "fine") == ("fine", THREAD)
    threads.stop()


async def test_as_many_run_at_once_as_there_are_threads() -> None:
    threads, barrier = ThreadExecutor(3), threading.Barrier(3)
    places = await asyncio.gather(*(ran(threads, lambda: barrier.wait(5)) for _ in range(3)))
    assert sorted(number for number, _ in places) == [0, 1, 2]
    threads.stop()


async def test_a_prediction_that_has_proved_quick_runs_on_the_loop() -> None:
    threads = ThreadExecutor(1)
    executor = QuickExecutor(threads)
    assert await ran(executor) == (None, THREAD)
    for _ in range(200):
        await ran(executor)
    assert await ran(executor) == (None, LOOP)
    threads.stop()


async def test_a_slow_answer_sends_it_back_to_the_threads() -> None:
    threads = ThreadExecutor(1)
    executor = QuickExecutor(threads)
    for _ in range(200):
        await ran(executor)
    await ran(executor, lambda: time.sleep(10 * QUICK_SECONDS))
    assert await ran(executor) == (None, THREAD)
    threads.stop()


async def test_quick_on_small_inputs_says_nothing_about_large_ones() -> None:
    threads = ThreadExecutor(1)
    executor = QuickExecutor(threads)
    for _ in range(200):
        await ran(executor, size=100)
    assert await ran(executor, size=100_000) == (None, THREAD)
    threads.stop()


async def test_a_model_that_may_wait_never_runs_on_the_loop() -> None:
    threads = ThreadExecutor(1)
    executor = QuickExecutor(threads)
    for _ in range(200):
        assert await ran(executor, size=None) == (None, THREAD)
    threads.stop()


async def test_what_a_quick_prediction_starts_goes_to_a_thread() -> None:
    threads = ThreadExecutor(1)
    executor = QuickExecutor(threads)
    for _ in range(200):
        await ran(executor)
    loop_thread = threading.get_ident()
    inner: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def start_another(*_: Any) -> None:
        work = Work(lambda: threading.get_ident() == loop_thread, 100)
        executor.submit(work, lambda on_loop, _error, _seconds: inner.set_result(on_loop))

    executor.submit(Work(lambda: None, 100), start_another)
    assert await inner is False
    threads.stop()
