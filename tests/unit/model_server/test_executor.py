"""Where predictions run: threads, and the event loop for those that have proved quick."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model_server.executor import QUICK_SECONDS, SLOW_SECONDS, Executor, Outcome, QuickExecutor, ThreadExecutor
from model_server.models.tensors import Tensors

LOOP, THREAD = "on the loop", "on a thread"


class Where:
    """A model that answers nothing, does what it is told, and notes where it ran."""

    def __init__(self) -> None:
        self.loop_thread = threading.get_ident()
        self.call: Callable[[], Any] = lambda: None
        self.place = ""

    def predict(self, inputs: Tensors) -> Tensors:
        self.place = LOOP if threading.get_ident() == self.loop_thread else THREAD
        self.call()
        return inputs


def quick(model: Where) -> QuickExecutor:
    return QuickExecutor(model.predict, ThreadExecutor(model.predict, 1))


async def ran(executor: Executor, model: Where, call: Callable[[], Any] = lambda: None, size: int = 25) -> Any:
    """Where `call` ran, as a prediction of `size` numbers; or what it raised."""
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    model.call = call
    executor.submit({"x": np.zeros(size, np.float32)}, lambda outcome: ended.set_result(outcome.error or model.place))
    return await ended


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1), StopIteration()], ids=lambda e: type(e).__name__)
async def test_a_thread_survives_whatever_a_model_raises(error: BaseException) -> None:
    model = Where()
    threads = ThreadExecutor(model.predict, 1)

    def fail() -> None:
        raise error

    assert await ran(threads, model, fail) is error
    assert await ran(threads, model) == THREAD
    threads.stop()


async def test_as_many_run_at_once_as_there_are_threads() -> None:
    barrier, ended = threading.Barrier(3), asyncio.Queue[Outcome]()
    threads = ThreadExecutor(lambda inputs: (barrier.wait(5), inputs)[1], 3)
    for _ in range(threads.slots):
        threads.submit({}, ended.put_nowait)
    async with asyncio.timeout(10):
        outcomes = [await ended.get() for _ in range(threads.slots)]
    assert [outcome.error for outcome in outcomes] == [None] * 3, "each would have waited in vain for the others"
    threads.stop()


async def test_a_prediction_that_has_proved_quick_runs_on_the_loop() -> None:
    model = Where()
    executor = quick(model)
    assert await ran(executor, model) == THREAD
    for _ in range(200):
        await ran(executor, model)
    assert await ran(executor, model) == LOOP
    executor.stop()


def compute() -> None:
    """For four times as long as a quick one may."""
    until = time.thread_time() + 4 * QUICK_SECONDS
    while time.thread_time() < until:
        pass


@pytest.mark.parametrize("slow", [compute, lambda: time.sleep(2 * SLOW_SECONDS)], ids=["computing", "waiting"])
async def test_two_slow_answers_send_it_back_to_the_threads(slow: Callable[[], None]) -> None:
    model = Where()
    executor = quick(model)
    for _ in range(200):
        await ran(executor, model)
    for _ in range(2):
        assert await ran(executor, model, slow) == LOOP
    assert await ran(executor, model) == THREAD
    executor.stop()


async def test_a_thread_that_others_keep_from_the_cpu_is_no_slow_model() -> None:
    """A storm of refusals holds the interpreter's lock: by the clock every prediction beside it would be slow."""
    model = Where()
    executor = quick(model)
    for _ in range(200):
        await ran(executor, model, lambda: time.sleep(2 * QUICK_SECONDS))
    assert await ran(executor, model) == LOOP
    executor.stop()


async def test_one_slow_answer_may_be_the_machines_fault() -> None:
    model = Where()
    executor = quick(model)
    for _ in range(200):
        await ran(executor, model)
    await ran(executor, model, compute)
    assert await ran(executor, model) == LOOP
    executor.stop()


async def test_quick_on_small_inputs_says_nothing_about_large_ones() -> None:
    model = Where()
    executor = quick(model)
    for _ in range(200):
        await ran(executor, model)
    assert await ran(executor, model, size=25_000) == THREAD
    executor.stop()


async def test_what_a_quick_prediction_starts_is_run_after_it() -> None:
    model = Where()
    executor = quick(model)
    for _ in range(200):
        await ran(executor, model)
    inner: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    inputs = {"x": np.zeros(25, np.float32)}

    def start_another(_outcome: Outcome) -> None:
        executor.submit(inputs, lambda _outcome: inner.set_result(model.place))
        assert not inner.done(), "not within the other's callback"

    executor.submit(inputs, start_another)
    assert inner.result() == LOOP
    executor.stop()


async def test_a_long_queue_of_quick_predictions_gives_others_a_turn() -> None:
    model = Where()
    executor = quick(model)
    for _ in range(200):
        await ran(executor, model)
    left, ended = 3000, asyncio.Event()
    inputs = {"x": np.zeros(25, np.float32)}

    def again(_outcome: Outcome) -> None:
        nonlocal left
        left -= 1
        if left:
            executor.submit(inputs, again)
        else:
            ended.set()

    executor.submit(inputs, again)
    assert 0 < left < 3000
    await asyncio.wait_for(ended.wait(), 5)
    assert left == 0
    executor.stop()
