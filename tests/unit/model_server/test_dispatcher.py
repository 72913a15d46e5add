"""The queue: who runs, who waits, who is refused, and that in-flight is right whatever happens."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_server.decide.batch_plan import NO_BATCHING, Limits
from model_server.dispatcher import Dispatcher
from model_server.errors import Code, Problem
from model_server.executor import Outcome
from model_server.models.tensors import Tensors
from model_server.queues import Priority, Ticket
from model_server.telemetry import Telemetry
from model_serving import ManualExecutor


class Asked:
    """A request and its answer; what is sent comes back, if the model answers."""

    def __init__(self, bench: Bench, value: float, rows: int, deadline: float, priority: Priority) -> None:
        self.value = value
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.ticket: Ticket | None = None
        self._bench = bench
        try:
            inputs = {"x": np.full((rows, 2), value, np.float32)}
            self.ticket = bench.dispatcher.enter(inputs, deadline, priority, self._done)
        except Problem as problem:
            self.answer.set_exception(problem)

    def _done(self, outputs: Tensors | None, error: BaseException | None) -> None:
        if outputs is None:
            assert error is not None
            self.answer.set_exception(error)
        else:
            self.answer.set_result(outputs["x"][:, 0].tolist())

    def leave(self) -> None:
        """The client goes away."""
        assert self.ticket is not None
        self._bench.dispatcher.leave(self.ticket)

    @property
    def refused(self) -> Problem:
        """Why it was not answered."""
        error = self.answer.exception()
        assert isinstance(error, Problem)
        return error


class Bench:
    """A Dispatcher with everything around it, on the running loop."""

    def __init__(self, slots: int = 1, max_queue: int = 2, limits: Limits = NO_BATCHING) -> None:
        self.executor = ManualExecutor(slots)
        self.telemetry = Telemetry()
        self.dispatcher = Dispatcher(self.executor, max_queue, self.telemetry, limits)

    def ask(self, value: float = 1, seconds: float = 10, rows: int = 1, priority: Priority = Priority.NORMAL) -> Asked:
        """A request with `rows` rows of `value`."""
        return Asked(self, value, rows, asyncio.get_running_loop().time() + seconds, priority)

    def measure(self, seconds: float, rows: int = 1) -> None:
        """Let the server find out how long a prediction takes."""
        self.ask(seconds=3600, rows=rows)
        self.executor.finish(seconds=seconds)

    @property
    def running(self) -> list[list[float]]:
        """What the model is working on: the values of each prediction's rows."""
        return [inputs["x"][:, 0].tolist() for inputs, _ in self.executor.pending]

    def shed(self, reason: str) -> float:
        return self.telemetry.registry.get_sample_value("inflight_server_shed_total", {"reason": reason}) or 0.0

    @property
    def counts(self) -> tuple[int, int]:
        """In flight, queued."""
        return self.dispatcher.in_flight, self.dispatcher.queue_depth


async def test_a_request_runs_at_once_while_a_slot_is_free() -> None:
    bench = Bench(slots=2)
    first, second = bench.ask(1), bench.ask(2)
    assert bench.running == [[1], [2]]
    assert bench.counts == (2, 0)
    bench.executor.finish(1)
    bench.executor.finish(0)
    assert (await first.answer, await second.answer) == ([1], [2])
    assert bench.counts == (0, 0)


async def test_the_rest_wait_in_order_of_arrival() -> None:
    bench = Bench()
    asked = [bench.ask(number) for number in range(3)]
    assert bench.counts == (3, 2)
    for number, one in enumerate(asked):
        assert bench.running == [[number]]
        bench.executor.finish()
        assert await one.answer == [number]


async def test_one_more_than_the_queue_holds_is_refused_with_when_to_come_back() -> None:
    bench = Bench(slots=2, max_queue=1)
    bench.measure(3.0)
    for _ in range(3):
        bench.ask()
    refused = bench.ask().refused
    assert refused.code is Code.QUEUE_FULL
    assert refused.detail == "2 predictions run and 1 requests wait: no more are taken"
    assert refused.retry_after_ms == pytest.approx(4500, abs=50)  # three ahead, 3 s each, two at a time
    assert bench.shed("queue_full") == 1
    assert bench.counts == (3, 1)


async def test_the_next_one_refused_is_told_to_come_one_service_later() -> None:
    bench = Bench(slots=2, max_queue=1)
    bench.measure(3.0)
    for _ in range(3):
        bench.ask()
    told = [bench.ask().refused.retry_after_ms or 0 for _ in range(3)]
    assert told == pytest.approx([4500, 6000, 7500], abs=50)


async def test_what_could_not_be_answered_in_time_is_refused_on_arrival() -> None:
    bench = Bench(max_queue=10)
    bench.measure(0.5)
    for _ in range(3):
        bench.ask(seconds=1.95)  # done after 0.5, 1.0 and 1.5 s
    refused = bench.ask(seconds=1.95).refused  # would be done after 2.0 s
    assert refused.code is Code.QUEUE_FULL
    assert re.fullmatch(
        "an answer takes about (19..|20..) ms now, which is more than .* deadline allows", refused.detail
    )
    assert bench.shed("too_late") == 1
    assert bench.counts == (3, 2)


async def test_a_service_time_that_varies_leaves_room_for_its_variation() -> None:
    bench = Bench(max_queue=10)
    for seconds in [0.4, 0.6] * 20:
        bench.measure(seconds)
    for _ in range(2):
        bench.ask(seconds=1.6)  # 0.5 s each on average, 0.7 s at worst
    assert bench.ask(seconds=1.6).refused.code is Code.QUEUE_FULL
    assert bench.counts == (2, 1)


async def test_a_free_slot_is_never_refused_for_what_was_measured() -> None:
    bench = Bench()
    bench.measure(60)
    quicker = bench.ask(5, seconds=1)
    bench.executor.finish(seconds=0.01)
    assert await quicker.answer == [5]


async def test_nothing_is_refused_for_its_time_before_anything_was_measured() -> None:
    bench = Bench()
    for _ in range(3):
        bench.ask(seconds=0.5)
    assert bench.counts == (3, 2)


async def test_what_can_no_longer_be_done_in_time_is_not_begun() -> None:
    bench = Bench(slots=2, max_queue=10)
    bench.measure(0.5)
    bench.ask(seconds=60), bench.ask(seconds=60)
    hopeless, hopeful = bench.ask(1, seconds=1.2), bench.ask(2, seconds=60)
    soon = asyncio.get_running_loop().time() + 0.3
    ticket_of(hopeless).deadline = soon
    bench.executor.finish(seconds=0.5)
    assert hopeless.refused.code is Code.QUEUE_FULL
    assert bench.running[-1] == [2], "the slot went to the one behind"
    assert bench.shed("too_late") == 1
    assert not hopeful.answer.done()


def ticket_of(asked: Asked) -> Ticket:
    assert asked.ticket is not None
    return asked.ticket


async def test_a_deadline_that_has_passed_is_refused_on_arrival() -> None:
    bench = Bench()
    assert bench.ask(seconds=0).refused.code is Code.DEADLINE
    assert bench.running == []
    assert bench.shed("deadline") == 1


async def test_what_passes_its_deadline_in_the_queue_is_never_computed() -> None:
    bench = Bench()
    running, late = bench.ask(seconds=60), bench.ask(seconds=0.02)
    with pytest.raises(Problem, match="queued"):
        await late.answer
    assert bench.counts == (1, 0)
    bench.executor.finish()
    assert await running.answer == [1]
    assert bench.running == []
    assert bench.shed("deadline") == 1


async def test_a_late_timer_does_not_let_the_dead_be_computed() -> None:
    bench = Bench()
    bench.ask(seconds=60)
    late = bench.ask(seconds=2)
    # The loop was busy past the deadline: the slot comes free before the timer had its turn.
    ticket_of(late).deadline = asyncio.get_running_loop().time()
    bench.executor.finish()
    assert bench.running == []
    assert late.refused.code is Code.DEADLINE
    assert bench.counts == (0, 0)


async def test_a_running_prediction_keeps_its_slot_after_its_client_was_answered_504() -> None:
    bench = Bench()
    slow, following = bench.ask(1, seconds=0.02), bench.ask(2, seconds=60)
    with pytest.raises(Problem, match="computing"):
        await slow.answer
    assert bench.counts == (2, 1)
    assert bench.running == [[1]]  # it can't be stopped, and nothing runs beside it
    bench.executor.finish()
    bench.executor.finish()
    assert await following.answer == [2]
    assert bench.counts == (0, 0)
    assert bench.shed("deadline") == 0  # it was computed


async def test_a_client_that_leaves_the_queue_is_never_computed() -> None:
    bench = Bench()
    bench.ask(seconds=60)
    leaving = bench.ask()
    leaving.leave()
    assert bench.counts == (1, 0)
    bench.executor.finish()
    assert bench.running == []
    assert not leaving.answer.done()


async def test_a_client_that_leaves_while_its_prediction_runs_is_not_answered() -> None:
    bench = Bench()
    leaving = bench.ask()
    leaving.leave()
    assert bench.counts == (1, 0)
    bench.executor.finish()
    assert bench.counts == (0, 0)
    assert not leaving.answer.done()


async def test_a_failed_prediction_fails_its_own_request_only() -> None:
    bench = Bench()
    failing, following = bench.ask(1), bench.ask(2)
    bench.executor.finish(error=ZeroDivisionError("no"))
    bench.executor.finish()
    with pytest.raises(ZeroDivisionError):
        await failing.answer
    assert await following.answer == [2]


@pytest.mark.parametrize(
    "error", [StopIteration("x"), SystemExit(3), KeyboardInterrupt()], ids=lambda e: type(e).__name__
)
async def test_exceptions_that_would_break_the_loop_become_ordinary_ones(error: BaseException) -> None:
    bench = Bench()
    asked = bench.ask()
    bench.executor.finish(error=error)
    with pytest.raises(RuntimeError, match=type(error).__name__):
        await asked.answer
    assert bench.counts == (0, 0)


class TestPriorities:
    """x-priority."""

    async def test_the_higher_is_served_first(self) -> None:
        bench = Bench(max_queue=10)
        bench.ask(0)
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
            bench.ask(priority, priority=priority)
        order = []
        while bench.running:
            order += bench.running[0]
            bench.executor.finish()
        assert order == [0, Priority.HIGH, Priority.NORMAL, Priority.LOW]

    async def test_every_fifth_start_belongs_to_the_lowest_that_waits(self) -> None:
        bench = Bench(max_queue=100)
        bench.ask(0)
        for priority in (Priority.LOW, Priority.HIGH):
            for _ in range(20):
                bench.ask(priority, priority=priority)
        order = []
        while bench.running:
            order += bench.running[0]
            bench.executor.finish()
        assert order[1:21].count(Priority.LOW) == 4

    async def test_in_a_full_queue_the_youngest_of_the_lowest_gives_way(self) -> None:
        bench = Bench(max_queue=3)
        bench.ask()
        older, younger = bench.ask(priority=Priority.LOW), bench.ask(priority=Priority.LOW)
        bench.ask()
        high = bench.ask(priority=Priority.HIGH)
        assert younger.refused.code is Code.QUEUE_FULL
        assert younger.refused.retry_after_ms
        assert not older.answer.done()
        assert not high.answer.done()
        assert bench.counts == (4, 3)
        assert bench.shed("displaced") == 1

    async def test_nobody_gives_way_to_his_equal(self) -> None:
        bench = Bench(max_queue=1)
        bench.ask(priority=Priority.HIGH)
        bench.ask(priority=Priority.HIGH)
        assert bench.ask(priority=Priority.HIGH).refused.code is Code.QUEUE_FULL


class TestBatches:
    """Rows of several requests as one prediction."""

    async def test_what_waits_while_all_are_busy_becomes_one_batch(self) -> None:
        bench = Bench(max_queue=10, limits=Limits(max_rows=8))
        asked = [bench.ask(number) for number in range(4)]
        assert bench.running == [[0]]
        bench.executor.finish()
        assert bench.running == [[1, 2, 3]]
        bench.executor.finish()
        assert [await one.answer for one in asked] == [[0], [1], [2], [3]]

    async def test_a_batch_has_no_more_rows_than_allowed(self) -> None:
        bench = Bench(max_queue=10, limits=Limits(max_rows=4))
        bench.ask(0)
        for number in (1, 2, 3):
            bench.ask(number, rows=2)
        bench.executor.finish()
        assert bench.running == [[1, 1, 2, 2]]

    async def test_one_poisoned_row_of_32_fails_alone(self) -> None:
        bench = Bench(max_queue=40, limits=Limits(max_rows=32))
        bench.ask(-1)
        asked = [bench.ask(number) for number in range(32)]
        bench.executor.finish()
        assert len(bench.running[0]) == 32
        runs = 0
        while bench.running:
            poisoned = 13 in bench.running[0]
            bench.executor.finish(error=Problem(Code.BAD_INPUT, "thirteen") if poisoned else None)
            runs += 1
        assert [number for number, one in enumerate(asked) if one.answer.exception()] == [13]
        assert runs <= 1 + 2 * 5, "it was found by halving"
        assert bench.counts == (0, 0)

    async def test_a_request_larger_than_a_batch_is_cut_and_put_together_again(self) -> None:
        bench = Bench(slots=2, max_queue=10, limits=Limits(max_rows=4))
        large = bench.ask(7, rows=10)
        assert [len(rows) for rows in bench.running] == [4, 4]
        bench.executor.finish(1)
        bench.executor.finish(0)
        bench.executor.finish()
        assert await large.answer == [7] * 10
        assert bench.counts == (0, 0)

    async def test_other_shapes_are_other_batches(self) -> None:
        bench = Bench(max_queue=10, limits=Limits(max_rows=8))
        bench.ask(0)
        bench.ask(1)
        deadline = asyncio.get_running_loop().time() + 10
        wide = {"x": np.full((1, 3), 2, np.float32)}
        bench.dispatcher.enter(wide, deadline, Priority.NORMAL, lambda *_: None)
        bench.ask(3)
        bench.executor.finish()
        assert bench.running == [[1, 3]]
        bench.executor.finish()
        assert bench.running == [[2]]

    async def test_whoever_left_is_not_answered_and_the_others_are(self) -> None:
        bench = Bench(max_queue=10, limits=Limits(max_rows=8))
        bench.ask(0)
        asked = [bench.ask(number) for number in (1, 2, 3)]
        bench.executor.finish()
        asked[1].leave()
        bench.executor.finish()
        assert (await asked[0].answer, await asked[2].answer) == ([1], [3])
        assert not asked[1].answer.done()
        assert bench.counts == (0, 0)

    async def test_a_model_that_does_not_work_by_rows_is_batched_no_more(self) -> None:
        bench = Bench(max_queue=10, limits=Limits(max_rows=8))
        bench.ask(0)
        asked = [bench.ask(number) for number in (1, 2)]
        bench.executor.finish()
        _, done = bench.executor.pending.pop()
        done(Outcome({"x": np.zeros((1, 2), np.float32)}, None, 0.1))
        while bench.running:
            bench.executor.finish()
        assert [await one.answer for one in asked] == [[1], [2]]

    async def test_a_free_slot_waits_for_more_rows_only_where_asked_to(self) -> None:
        bench = Bench(max_queue=10, limits=Limits(max_rows=8, max_delay=0.03))
        bench.ask(1)
        bench.ask(2)
        assert bench.running == []
        await asyncio.sleep(0.05)
        assert bench.running == [[1, 2]]


Step = tuple[str, int]
_STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "finish", "fail", "leave", "wait"]), st.integers(0, 5)), max_size=60
)


@given(steps=_STEPS, slots=st.integers(1, 3), max_queue=st.integers(0, 4), max_rows=st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_in_flight_is_right_after_any_mix_of_answers_errors_timeouts_and_departures(
    steps: list[Step], slots: int, max_queue: int, max_rows: int
) -> None:
    async def scenario() -> None:
        bench = Bench(slots, max_queue, Limits(max_rows))
        asked: list[Asked] = []
        for what, which in steps:
            if what == "ask":
                priority = Priority(which % 3)
                asked.append(bench.ask(which, seconds=0.001 + which * 0.002, rows=1 + which % 2, priority=priority))
            elif what in ("finish", "fail") and bench.running:
                error = ZeroDivisionError() if what == "fail" else None
                bench.executor.finish(which % len(bench.running), error=error)
            elif what == "leave" and asked and asked[which % len(asked)].ticket:
                asked[which % len(asked)].leave()
            else:
                await asyncio.sleep(which * 0.001)
            assert len(bench.running) <= slots
            assert bench.dispatcher.in_flight <= len(asked)
            assert len(bench.running) == slots or bench.dispatcher.queue_depth == 0  # nobody waits beside a free slot
        while bench.running:
            bench.executor.finish()
        for one in asked:
            if one.answer.done() and one.answer.exception() is None:
                assert set(one.answer.result()) == {one.value}, "everybody got his own answer"
        assert bench.counts == (0, 0)
        assert bench.telemetry.registry.get_sample_value("inflight_server_requests_in_flight") == 0

    asyncio.run(scenario())


async def test_those_who_wait_for_a_prediction_may_change_its_deadline() -> None:
    bench = Bench()
    bench.ask(seconds=60)
    shared = bench.ask(2, seconds=0.02)
    later = asyncio.get_running_loop().time() + 60
    bench.dispatcher.wanted(ticket_of(shared), later, Priority.NORMAL)
    await asyncio.sleep(0.03)
    bench.executor.finish(), bench.executor.finish()
    assert await shared.answer == [2]
    assert bench.counts == (0, 0)


async def test_when_only_hasty_ones_wait_for_a_prediction_it_ends_with_them() -> None:
    bench = Bench()
    bench.ask(seconds=60)
    left = bench.ask(2, seconds=60)
    bench.dispatcher.wanted(ticket_of(left), asyncio.get_running_loop().time() + 0.02, Priority.NORMAL)
    with pytest.raises(Problem, match="queued"):
        await left.answer
    assert bench.counts == (1, 0)


async def test_those_who_wait_for_a_prediction_may_change_its_priority_but_not_its_age() -> None:
    bench = Bench(max_queue=4)
    bench.ask(0)
    older = bench.ask(1, priority=Priority.LOW)
    bench.ask(2), bench.ask(3, priority=Priority.LOW)
    ticket = ticket_of(older)
    bench.dispatcher.wanted(ticket, ticket.deadline, Priority.NORMAL)
    bench.executor.finish()
    assert bench.running == [[1]], "before the one of the same priority that came later"


async def test_a_prediction_that_is_wanted_less_falls_back_to_its_place() -> None:
    bench = Bench(max_queue=4)
    bench.ask(0)
    once_high = bench.ask(1, priority=Priority.LOW)
    bench.ask(2, priority=Priority.LOW), bench.ask(3)
    ticket = ticket_of(once_high)
    for priority in (Priority.HIGH, Priority.LOW):
        bench.dispatcher.wanted(ticket, ticket.deadline, priority)
    bench.executor.finish()
    assert bench.running == [[3]]
    bench.executor.finish()
    assert bench.running == [[1]]
