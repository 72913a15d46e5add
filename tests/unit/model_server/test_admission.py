"""The queue: who runs, who waits, who is refused, and that in-flight is right whatever happens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_server.admission import Admission
from model_server.errors import Code, Problem
from model_server.executor import Work
from model_server.telemetry import Telemetry
from model_serving import ManualExecutor


class Bench:
    """An Admission with everything around it, on the running loop."""

    def __init__(self, concurrency: int = 1, max_queue: int = 2) -> None:
        self.executor = ManualExecutor()
        self.telemetry = Telemetry()
        self.admission = Admission(concurrency, max_queue, self.executor, self.telemetry)
        self.left = asyncio.Event()

    def ask(self, answer: Any = "done", seconds: float = 10, left: asyncio.Event | None = None) -> asyncio.Task[Any]:
        """A request whose prediction is `answer` (raised if it is an exception)."""

        def work() -> Any:
            if isinstance(answer, BaseException):
                raise answer
            return answer

        async def departure() -> None:
            await (left or asyncio.Event()).wait()

        deadline = asyncio.get_running_loop().time() + seconds
        return asyncio.create_task(self.admission.run(Work(work), deadline, departure))

    def shed(self, reason: str) -> float:
        return self.telemetry.registry.get_sample_value("inflight_server_shed_total", {"reason": reason}) or 0.0

    @property
    def counts(self) -> tuple[int, int]:
        """In flight, queued."""
        return self.admission.in_flight, self.admission.queue_depth


async def settle() -> None:
    """Let every task do what it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def problem(task: asyncio.Task[Any]) -> Problem:
    with pytest.raises(Problem) as raised:
        await task
    return raised.value


async def test_a_request_runs_at_once_while_a_slot_is_free() -> None:
    bench = Bench(concurrency=2)
    first, second = bench.ask("a"), bench.ask("b")
    await settle()
    assert len(bench.executor.pending) == 2
    assert bench.counts == (2, 0)
    bench.executor.finish(1)
    bench.executor.finish(0)
    assert (await first, await second) == ("a", "b")
    assert bench.counts == (0, 0)


async def test_the_rest_wait_in_order_of_arrival() -> None:
    bench = Bench()
    tasks = [bench.ask(number) for number in range(3)]
    await settle()
    assert bench.counts == (3, 2)
    for number, task in enumerate(tasks):
        assert len(bench.executor.pending) == 1
        bench.executor.finish()
        assert await task == number


async def test_one_more_than_the_queue_holds_is_refused_with_when_to_come_back() -> None:
    bench = Bench(concurrency=2, max_queue=1)
    bench.ask(seconds=60)
    await settle()
    bench.executor.finish(seconds=3.0)  # the service time that is known from now on
    held = [bench.ask() for _ in range(3)]
    await settle()
    refused = await problem(bench.ask())
    assert refused.code is Code.QUEUE_FULL
    assert refused.retry_after_ms == 4500  # three ahead, 3 s each, two at a time
    assert bench.shed("queue_full") == 1
    assert bench.counts == (3, 1)
    assert not any(task.done() for task in held)
    for task in held:
        task.cancel()


async def measured(bench: Bench, seconds: float) -> None:
    """Let the server find out how long a prediction takes."""
    first = bench.ask()
    await settle()
    bench.executor.finish(seconds=seconds)
    await first


async def test_what_could_not_be_answered_in_time_is_refused_on_arrival() -> None:
    bench = Bench(max_queue=10)
    await measured(bench, 0.5)
    held = [bench.ask(seconds=1.9) for _ in range(3)]  # done after 0.5, 1.0 and 1.5 s
    await settle()
    refused = await problem(bench.ask(seconds=1.9))  # would be done after 2.0 s
    assert refused.code is Code.QUEUE_FULL
    assert refused.detail == "an answer takes about 2000 ms now, which is more than the request's deadline allows"
    assert refused.retry_after_ms == 1500
    assert bench.shed("too_late") == 1
    assert bench.counts == (3, 2)
    for task in held:
        task.cancel()


async def test_a_service_time_that_varies_leaves_room_for_its_variation() -> None:
    bench = Bench(max_queue=10)
    for seconds in [0.4, 0.6] * 20:
        await measured(bench, seconds)
    held = [bench.ask(seconds=1.6) for _ in range(2)]  # 0.5 s each on average, 0.7 s at worst
    await settle()
    refused = await problem(bench.ask(seconds=1.6))
    assert refused.code is Code.QUEUE_FULL
    assert bench.counts == (2, 1)
    for task in held:
        task.cancel()


async def test_with_more_slots_the_wait_is_shorter() -> None:
    bench = Bench(concurrency=2, max_queue=10)
    await measured(bench, 0.5)
    held = [bench.ask(seconds=1.1) for _ in range(3)]
    await settle()
    assert bench.counts == (3, 1)
    for task in held:
        task.cancel()


async def test_a_free_slot_is_never_refused_for_what_was_measured() -> None:
    bench = Bench()
    await measured(bench, 60)
    quicker = bench.ask(seconds=1)
    await settle()
    bench.executor.finish(seconds=0.01)
    assert await quicker == "done"


async def test_nothing_is_refused_for_its_time_before_anything_was_measured() -> None:
    bench = Bench()
    held = [bench.ask(seconds=0.5) for _ in range(3)]
    await settle()
    assert bench.counts == (3, 2)
    for task in held:
        task.cancel()


async def test_what_can_no_longer_be_done_in_time_is_not_begun() -> None:
    bench = Bench(max_queue=10)
    await measured(bench, 0.5)
    slow, hopeless, hopeful = bench.ask(seconds=60), bench.ask(seconds=1.2), bench.ask(seconds=60)
    await settle()
    bench.admission._waiting[2].deadline = asyncio.get_running_loop().time() + 0.3
    bench.executor.finish(seconds=0.5)
    assert await slow == "done"
    assert (await problem(hopeless)).code is Code.QUEUE_FULL
    await settle()
    bench.executor.finish(seconds=0.5)
    assert await hopeful == "done", "the slot went to the one behind"
    assert bench.shed("too_late") == 1


async def test_a_deadline_that_has_passed_is_refused_on_arrival() -> None:
    bench = Bench()
    refused = await problem(bench.ask(seconds=0))
    assert refused.code is Code.DEADLINE
    assert bench.executor.pending == []
    assert bench.shed("deadline") == 1


async def test_what_passes_its_deadline_in_the_queue_is_never_computed() -> None:
    bench = Bench()
    running = bench.ask(seconds=60)
    late = bench.ask(seconds=0.02)
    assert (await problem(late)).code is Code.DEADLINE
    assert bench.counts == (1, 0)
    bench.executor.finish()
    assert await running == "done"
    assert bench.executor.pending == []
    assert bench.shed("deadline") == 1


async def test_a_late_timer_does_not_let_the_dead_be_computed() -> None:
    bench = Bench()
    bench.ask(seconds=60)
    late = bench.ask(seconds=2)
    await settle()
    # The loop was busy past the deadline: the slot comes free before the timer had its turn.
    bench.admission._waiting[1].deadline = asyncio.get_running_loop().time()
    bench.executor.finish()
    assert bench.executor.pending == []
    assert (await problem(late)).code is Code.DEADLINE
    assert bench.counts == (0, 0)


async def test_a_running_prediction_keeps_its_slot_after_its_client_was_answered_504() -> None:
    bench = Bench()
    slow, next_one = bench.ask("slow", seconds=0.02), bench.ask("next", seconds=60)
    assert (await problem(slow)).code is Code.DEADLINE
    assert bench.counts == (2, 1)
    assert len(bench.executor.pending) == 1  # it can't be stopped, and nothing runs beside it
    bench.executor.finish()
    bench.executor.finish()
    assert await next_one == "next"
    assert bench.counts == (0, 0)
    assert bench.shed("deadline") == 0  # it was computed


async def test_a_client_that_leaves_the_queue_is_never_computed() -> None:
    bench, left = Bench(), asyncio.Event()
    bench.ask(seconds=60)
    leaving = bench.ask(left=left)
    await settle()
    left.set()
    assert (await problem(leaving)).code is Code.CANCELLED
    assert bench.counts == (1, 0)
    bench.executor.finish()
    assert bench.executor.pending == []


async def test_a_failed_prediction_fails_its_own_request_only() -> None:
    bench = Bench()
    failing, next_one = bench.ask(ZeroDivisionError("no")), bench.ask("fine")
    await settle()
    bench.executor.finish()
    bench.executor.finish()
    with pytest.raises(ZeroDivisionError):
        await failing
    assert await next_one == "fine"


@pytest.mark.parametrize(
    "error", [StopIteration("x"), SystemExit(3), KeyboardInterrupt()], ids=lambda e: type(e).__name__
)
async def test_exceptions_that_would_break_the_loop_become_ordinary_ones(error: BaseException) -> None:
    bench = Bench()
    task = bench.ask()
    await settle()
    _, done = bench.executor.pending.pop()
    done(None, error, 0.1)
    with pytest.raises(RuntimeError, match=type(error).__name__):
        await task
    assert bench.counts == (0, 0)


Step = tuple[str, int]
_STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "finish", "fail", "leave", "abort", "wait"]), st.integers(0, 5)),
    max_size=60,
)


@given(steps=_STEPS, concurrency=st.integers(1, 3), max_queue=st.integers(0, 3))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_in_flight_is_right_after_any_mix_of_answers_errors_timeouts_and_departures(
    steps: list[Step], concurrency: int, max_queue: int
) -> None:
    async def scenario() -> None:
        bench = Bench(concurrency, max_queue)
        asked: list[tuple[asyncio.Task[Any], asyncio.Event]] = []
        for what, which in steps:
            if what == "ask":
                left = asyncio.Event()
                asked.append((bench.ask(which, seconds=0.001 + which * 0.002, left=left), left))
            elif what in ("finish", "fail") and bench.executor.pending:
                index = which % len(bench.executor.pending)
                if what == "fail":
                    bench.executor.pending[index] = (Work(lambda: 1 // 0), bench.executor.pending[index][1])
                bench.executor.finish(index)
            elif what == "leave" and asked:
                asked[which % len(asked)][1].set()
            elif what == "abort" and asked:
                asked[which % len(asked)][0].cancel()
            else:
                await asyncio.sleep(which * 0.001)
            await settle()
            running = len(bench.executor.pending)
            assert bench.admission.in_flight == running + bench.admission.queue_depth
            assert running <= concurrency
            assert bench.admission.queue_depth <= max_queue
            assert running == concurrency or bench.admission.queue_depth == 0  # nobody waits beside a free slot
        while bench.executor.pending:
            bench.executor.finish()
            await settle()
        await asyncio.gather(*(task for task, _ in asked), return_exceptions=True)
        assert bench.counts == (0, 0)
        assert bench.telemetry.registry.get_sample_value("inflight_server_requests_in_flight") == 0

    asyncio.run(scenario())
