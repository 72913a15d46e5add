"""The cache in front of the queue. Time is the event loop's, faked by looptime."""

from __future__ import annotations

import asyncio
import sys
import traceback
from typing import Any

import looptime
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_cache import TTL, Asked, CacheBench, FakeShared
from model_server.cache import caching
from model_server.cache.caching import Caching
from model_server.dispatcher import Dispatcher
from model_server.errors import Code, LoadFailure, Problem
from model_server.executor import Outcome
from model_server.queues import Priority
from model_server.settings import ModelSettings, Settings, StorageSettings

pytestmark = pytest.mark.looptime

LOW, NORMAL, HIGH = Priority


class TestKept:
    async def test_an_equal_request_is_answered_at_once_and_computed_never(self) -> None:
        bench = CacheBench()
        first = bench.ask(1)
        bench.finish()
        second = bench.ask(1)
        assert (first.answer, second.answer) == (1, 1)
        assert (first.result, second.result) == ("miss", "hit")
        assert (bench.running, bench.counts) == ([], (0, 0))

    async def test_another_request_is_computed(self) -> None:
        bench = CacheBench()
        bench.ask(1)
        bench.finish()
        assert bench.ask(2).answer is None
        assert bench.running == [2]

    async def test_a_hit_is_no_service_time(self) -> None:
        bench = CacheBench()
        bench.ask(1)
        bench.finish()
        for _ in range(5):
            bench.ask(1)
        assert bench.value("service_seconds_count") == 1
        assert bench.value("queue_wait_seconds_count") == 1

    async def test_it_is_computed_again_after_its_time(self) -> None:
        bench = CacheBench()
        bench.ask(1)
        bench.finish()
        await asyncio.sleep(TTL - 0.01)
        assert bench.ask(1).result == "hit"
        await asyncio.sleep(0.01)
        assert bench.ask(1).result == "miss"

    async def test_errors_are_not_kept(self) -> None:
        bench = CacheBench()
        failed = bench.ask(1)
        bench.finish(ZeroDivisionError())
        assert isinstance(failed.answer, ZeroDivisionError)
        again = bench.ask(1)
        assert bench.running == [1]
        bench.finish()
        assert (again.answer, again.result) == (1, "miss")

    async def test_it_is_answered_while_the_queue_is_full(self) -> None:
        bench = CacheBench(max_queue=0)
        bench.ask(1)
        bench.finish()
        bench.ask(2)
        bench.caching.check(asyncio.get_running_loop().time() + 1)
        assert bench.ask(1).answer == 1
        assert bench.ask(3).answer.code is Code.QUEUE_FULL

    async def test_while_nothing_is_kept_a_full_queue_refuses_before_a_body_is_read(self) -> None:
        bench = CacheBench(max_queue=0)
        bench.ask(1, header="no-cache, no-store")
        with pytest.raises(Problem) as refused:
            bench.caching.check(asyncio.get_running_loop().time() + 1)
        assert refused.value.code is Code.QUEUE_FULL

    async def test_a_deadline_that_has_passed_is_refused_whatever_is_kept(self) -> None:
        bench = CacheBench()
        bench.ask(1)
        bench.finish()
        with pytest.raises(Problem) as refused:
            bench.caching.check(asyncio.get_running_loop().time())
        assert refused.value.code is Code.DEADLINE

    async def test_inputs_without_a_key_are_computed_each_for_itself(self) -> None:
        bench = CacheBench(slots=2)
        strange = {"x": np.array([["text"]], object)}
        for _ in range(2):
            bench.caching.enter(strange, 60, NORMAL, lambda *_: None)
        assert len(bench.executor.pending) == 2
        assert bench.value("cache_requests_total", result="bypass") == 2

    async def test_outputs_that_cannot_be_kept_are_answered_all_the_same(self) -> None:
        bench = CacheBench()
        asked = bench.ask(1)
        inputs, done = bench.executor.pending.pop()
        done(Outcome({"x": inputs["x"].astype(object)}, None, 0.1))
        assert asked.answer == 1
        assert bench.value("cache_entries") == 0


class TestAsked:
    """With Cache-Control."""

    async def test_no_cache_is_computed_anew_and_renews_what_is_kept(self) -> None:
        bench = CacheBench()
        bench.ask(1)
        bench.finish()
        await asyncio.sleep(TTL - 1)
        asked = bench.ask(1, header="no-cache")
        assert (bench.running, asked.result) == ([1], "bypass")
        bench.finish()
        assert asked.answer == 1
        await asyncio.sleep(TTL - 1)
        assert bench.ask(1).result == "hit"

    async def test_no_cache_does_not_wait_for_a_computation_that_began_before(self) -> None:
        bench = CacheBench(slots=2)
        bench.ask(1), bench.ask(1, header="no-cache")
        assert bench.running == [1, 1]

    async def test_no_store_is_answered_with_what_is_kept_but_not_kept(self) -> None:
        bench = CacheBench()
        assert bench.ask(1, header="no-store").result == "miss"
        bench.finish()
        assert bench.value("cache_entries") == 0
        bench.ask(1)
        bench.finish()
        assert bench.ask(1, header="no-store").result == "hit"

    async def test_an_answer_is_kept_if_anybody_who_waited_for_it_allows_that(self) -> None:
        bench = CacheBench()
        bench.ask(1, header="no-store"), bench.ask(1)
        bench.finish()
        assert bench.value("cache_entries") == 1

    async def test_both_leave_no_trace(self) -> None:
        bench = CacheBench()
        asked = bench.ask(1, header="no-cache, no-store")
        bench.finish()
        assert (asked.answer, asked.result, bench.value("cache_entries")) == (1, "bypass", 0)

    async def test_max_age_wants_no_older_answer(self) -> None:
        bench = CacheBench()
        bench.ask(1)
        bench.finish()
        await asyncio.sleep(3)
        assert bench.ask(1, header="max-age=3").result == "hit"
        assert bench.ask(1, header="max-age=2").result == "miss"


class TestTogether:
    """Equal requests at one time."""

    async def test_they_are_computed_once_and_all_answered(self) -> None:
        bench = CacheBench()
        asked = [bench.ask(1) for _ in range(5)]
        assert (bench.running, bench.counts) == ([1], (5, 0))
        bench.finish()
        assert [one.answer for one in asked] == [1] * 5
        assert [one.result for one in asked] == ["miss", *["coalesced"] * 4]
        assert bench.counts == (0, 0)

    async def test_those_who_wait_for_others_take_no_place_in_the_queue(self) -> None:
        bench = CacheBench(max_queue=1)
        bench.ask(1)
        asked = [bench.ask(2) for _ in range(10)]
        assert bench.counts == (11, 1)
        assert bench.ask(3).answer.code is Code.QUEUE_FULL
        bench.finish(), bench.finish()
        assert [one.answer for one in asked] == [2] * 10

    async def test_when_the_first_leaves_the_others_still_get_their_answer(self) -> None:
        bench = CacheBench()
        first, second = bench.ask(1), bench.ask(1)
        first.leave()
        assert bench.counts == (1, 0)
        bench.finish()
        assert (first.answer, second.answer) == (None, 1)
        assert bench.ask(1).result == "hit"

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["the first first", "the first last"])
    async def test_when_all_have_left_nothing_is_computed_of_what_was_queued(self, order: tuple[int, int]) -> None:
        bench = CacheBench()
        bench.ask(0)
        asked = [bench.ask(1), bench.ask(1)]
        for which in order:
            asked[which].leave()
        assert bench.counts == (1, 0)
        bench.finish()
        assert bench.running == []

    async def test_one_who_comes_after_all_have_left_begins_anew(self) -> None:
        bench = CacheBench(slots=2)
        bench.ask(1).leave()
        asked = bench.ask(1)
        assert (bench.running, asked.result) == ([1, 1], "miss")
        bench.finish()
        assert asked.answer is None, "the first prediction was nobody's any more"
        bench.finish()
        assert asked.answer == 1

    async def test_it_goes_on_past_the_first_ones_deadline_while_another_waits(self) -> None:
        bench = CacheBench()
        bench.ask(0)
        hasty, patient = bench.ask(1, seconds=1), bench.ask(1, seconds=5)
        await asyncio.sleep(1)
        assert hasty.answer.code is Code.DEADLINE
        assert bench.counts == (2, 1)
        bench.finish(), bench.finish()
        assert patient.answer == 1

    async def test_who_joins_with_an_earlier_deadline_is_answered_by_then(self) -> None:
        bench = CacheBench()
        patient, hasty = bench.ask(1, seconds=5), bench.ask(1, seconds=1)
        await asyncio.sleep(1)
        assert hasty.answer.code is Code.DEADLINE
        assert patient.answer is None
        assert bench.value("shed_total", reason="deadline") == 0, "it is being computed"

    async def test_it_ends_at_the_last_deadline(self) -> None:
        bench = CacheBench()
        bench.ask(0)
        asked = [bench.ask(1, seconds=seconds) for seconds in (1, 3, 2)]
        await asyncio.sleep(3)
        assert [one.answer.code for one in asked] == [Code.DEADLINE] * 3
        assert bench.counts == (1, 0)
        bench.finish()
        assert bench.running == []
        assert bench.value("shed_total", reason="deadline") == 3

    async def test_when_the_most_patient_leaves_it_is_for_the_next_one(self) -> None:
        bench = CacheBench()
        bench.ask(0)
        hasty, patient = bench.ask(1, seconds=1), bench.ask(1, seconds=60)
        patient.leave()
        assert hasty.ticket is not None
        assert hasty.ticket.flight.ticket.deadline == hasty.ticket.deadline  # type: ignore[attr-defined]
        await asyncio.sleep(1)
        assert bench.counts == (1, 0)

    async def test_an_important_one_brings_the_others_forward(self) -> None:
        bench = CacheBench(max_queue=5)
        bench.ask(0)
        bench.ask(1, priority=LOW), bench.ask(2)
        bench.ask(1, priority=HIGH)
        bench.finish()
        assert bench.running == [1]

    async def test_when_the_important_one_leaves_it_falls_back(self) -> None:
        bench = CacheBench(max_queue=5)
        bench.ask(0)
        bench.ask(1, priority=LOW), bench.ask(2)
        bench.ask(1, priority=HIGH).leave()
        bench.finish()
        assert bench.running == [2]

    async def test_one_who_is_displaced_is_displaced_with_all_who_wait_with_him(self) -> None:
        bench = CacheBench(max_queue=1)
        bench.ask(0)
        asked = [bench.ask(1, priority=LOW), bench.ask(1, priority=LOW)]
        bench.ask(2, priority=HIGH)
        assert [one.answer.code for one in asked] == [Code.QUEUE_FULL] * 2
        assert bench.counts == (2, 1)

    async def test_with_an_important_one_among_them_they_are_not_displaced(self) -> None:
        bench = CacheBench(max_queue=1)
        bench.ask(0)
        asked = [bench.ask(1, priority=LOW), bench.ask(1, priority=HIGH)]
        assert bench.ask(2, priority=HIGH).answer.code is Code.QUEUE_FULL
        assert [one.answer for one in asked] == [None, None]

    async def test_one_who_was_refused_leaves_nothing_for_others_to_wait_for(self) -> None:
        bench = CacheBench(max_queue=0)
        bench.ask(0)
        assert bench.ask(1).answer.code is Code.QUEUE_FULL
        bench.finish()
        assert bench.ask(1).result == "miss"
        assert bench.running == [1]

    async def test_an_error_goes_to_all_who_waited_and_does_not_grow_with_them(self) -> None:
        bench = CacheBench()
        lengths: list[int] = []

        def raised(_: object, error: BaseException | None) -> None:
            assert error is not None
            try:
                raise error
            except ZeroDivisionError as caught:
                lengths.append(len(traceback.extract_tb(caught.__traceback__)))

        for _ in range(50):
            bench.caching.enter({"x": np.ones((1, 1))}, 60, NORMAL, raised)
        bench.finish(ZeroDivisionError())
        assert lengths == [lengths[0]] * 50

    async def test_one_who_cannot_be_answered_does_not_keep_the_others_from_it(self) -> None:
        bench = CacheBench()

        def broken(*_: object) -> None:
            raise ConnectionResetError

        bench.caching.enter({"x": np.array([[1]], np.float32)}, 60, NORMAL, broken)
        asked = bench.ask(1)
        bench.finish()
        assert asked.answer == 1

    async def test_one_who_asks_again_as_he_is_answered_finds_it_kept(self) -> None:
        bench = CacheBench()
        again: list[Asked] = []
        bench.caching.enter({"x": np.array([[1]], np.float32)}, 60, NORMAL, lambda *_: again.append(bench.ask(1)))
        other = bench.ask(1)
        bench.finish()
        assert (again[0].answer, again[0].result, other.answer) == (1, "hit", 1)

    async def test_one_who_is_left_as_another_is_answered_gets_nothing(self) -> None:
        bench = CacheBench()
        others: list[Asked] = []
        bench.caching.enter({"x": np.array([[1]], np.float32)}, 60, NORMAL, lambda *_: others[0].leave())
        others += [bench.ask(1), bench.ask(1)]
        bench.finish()
        assert (others[0].answer, others[1].answer) == (None, 1)

    async def test_one_who_joins_while_the_first_is_still_entering_counts(self) -> None:
        """Entering may answer others at once, who ask again on the same connection."""
        bench = CacheBench(max_queue=1)
        joined: list[Asked] = []
        bench.ask(0)
        displaced = {"x": np.array([[7]], np.float32)}
        bench.caching.enter(displaced, 99, LOW, lambda *_: joined.append(bench.ask(1, seconds=50, priority=HIGH)))
        first = bench.ask(1, seconds=1)  # takes the place of 7, whose client then asks for 1 too
        assert (first.result, joined[0].result) == ("miss", "coalesced")
        await asyncio.sleep(2)
        bench.finish(), bench.finish()
        assert (first.answer.code, joined[0].answer) == (Code.DEADLINE, 1)


class TestShared:
    """With a shared level."""

    async def test_what_is_found_there_is_answered_and_kept_here_as_long_as_there(self) -> None:
        shared = FakeShared()
        bench = CacheBench(shared=shared)
        asked = bench.ask(1)
        assert (bench.running, bench.counts) == ([], (1, 0))
        shared.answer(1, remaining=4)
        assert (asked.answer, asked.result, bench.counts) == (1, "hit", (0, 0))
        await asyncio.sleep(3.99)
        assert bench.ask(1).answer == 1
        await asyncio.sleep(0.02)
        assert bench.ask(1).answer is None

    async def test_what_is_not_found_there_is_computed_and_put_there(self) -> None:
        shared = FakeShared()
        bench = CacheBench(shared=shared)
        asked = bench.ask(1)
        shared.answer(None)
        assert (bench.running, asked.result) == ([1], "miss")
        bench.finish()
        assert asked.answer == 1
        assert [kept.outputs["x"].tolist() for kept in shared.put_there.values()] == [[[1]]]

    async def test_without_it_everything_is_computed_at_once(self) -> None:
        shared = FakeShared()
        shared.up = False
        bench = CacheBench(shared=shared)
        asked = bench.ask(1)
        assert (bench.running, asked.result) == ([1], "miss")

    async def test_equal_requests_ask_once(self) -> None:
        shared = FakeShared()
        bench = CacheBench(shared=shared)
        asked = [bench.ask(1) for _ in range(3)]
        assert (len(shared.asked), bench.counts) == (1, (3, 0))
        shared.answer(1)
        assert [one.answer for one in asked] == [1, 1, 1]
        assert [one.result for one in asked] == ["hit", "coalesced", "coalesced"]

    async def test_nothing_is_computed_for_those_who_left_meanwhile(self) -> None:
        shared = FakeShared()
        bench = CacheBench(shared=shared)
        bench.ask(1).leave()
        assert (shared.cancelled, bench.counts) == (1, (0, 0))

    async def test_it_enters_the_queue_for_all_who_came_meanwhile(self) -> None:
        shared = FakeShared()
        bench = CacheBench(shared=shared, max_queue=5)
        bench.ask(0)
        shared.answer(None)
        bench.ask(1, seconds=1, priority=LOW), bench.ask(1, seconds=60, priority=HIGH)
        bench.ask(2, priority=NORMAL)
        shared.answer(None), shared.answer(None)
        await asyncio.sleep(2)
        bench.finish()
        assert bench.running == [1]

    async def test_a_refusal_after_asking_goes_to_all_who_waited(self) -> None:
        shared = FakeShared()
        bench = CacheBench(shared=shared, max_queue=0)
        asked = [bench.ask(1), bench.ask(1)]
        bench.ask(2)
        shared.asked = dict(reversed(shared.asked.items()))
        shared.answer(None), shared.answer(None)
        assert [one.answer.code for one in asked] == [Code.QUEUE_FULL] * 2
        assert bench.counts == (1, 0)

    async def test_what_is_there_may_be_too_old_for_who_asks(self) -> None:
        shared = FakeShared()
        bench = CacheBench(shared=shared)
        asked = bench.ask(1, header="max-age=2")
        shared.answer(1, remaining=TTL - 3)
        assert (bench.running, asked.result) == ([1], "miss")

    async def test_no_cache_does_not_ask_there(self) -> None:
        shared = FakeShared()
        bench = CacheBench(shared=shared)
        bench.ask(1, header="no-cache")
        assert (shared.asked, bench.running) == ({}, [1])

    async def test_no_store_is_not_put_there(self) -> None:
        shared = FakeShared()
        bench = CacheBench(shared=shared)
        bench.ask(1, header="no-store")
        shared.answer(None)
        bench.finish()
        assert shared.put_there == {}

    async def test_a_full_queue_refuses_nobody_before_it_was_asked(self) -> None:
        bench = CacheBench(shared=FakeShared(), max_queue=0)
        bench.caching.enter({"x": np.ones((1, 1))}, 60, NORMAL, lambda *_: None)
        bench.caching.check(asyncio.get_running_loop().time() + 1)


class TestBuilt:
    """By the settings."""

    def over(self, **given: Any) -> Dispatcher | Caching:
        bench = CacheBench()
        read = Settings(ModelSettings("digits", "s3://b/k"), StorageSettings(), None, **given)
        return caching.over(bench.dispatcher, read, "ab" * 32, bench.telemetry)

    async def test_without_memory_for_it_there_is_none(self) -> None:
        assert isinstance(self.over(), Dispatcher)

    async def test_with_memory_there_is_one(self) -> None:
        assert isinstance(self.over(cache_max_megabytes=1), Caching)

    async def test_a_shared_level_whose_client_is_missing_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "valkey", None)
        with pytest.raises(LoadFailure, match=r"pip install 'inflight-model-server\[shared-cache\]'"):
            self.over(cache_max_megabytes=1, cache_url="redis://127.0.0.1:1")


async def test_every_request_is_counted_by_what_became_of_it() -> None:
    bench = CacheBench()
    bench.ask(1), bench.ask(1)
    bench.finish()
    bench.ask(1)
    bench.ask(1, header="no-cache")
    counted = {
        result: bench.value("cache_requests_total", result=result) for result in ("hit", "miss", "coalesced", "bypass")
    }
    assert counted == {"hit": 1, "miss": 1, "coalesced": 1, "bypass": 1}
    assert bench.value("cache_bytes") > 0


Step = tuple[str, int]
_WHAT = ["ask", "ask", "ask", "finish", "fail", "leave", "wait", "found", "not found"]
_STEPS = st.lists(st.tuples(st.sampled_from(_WHAT), st.integers(0, 11)), max_size=60)
_HEADERS = ("", "", "", "no-cache", "no-store", "max-age=1")


@pytest.mark.parametrize("with_shared", [False, True], ids=["alone", "with a shared level"])
@given(steps=_STEPS, slots=st.integers(1, 2), max_queue=st.integers(0, 3), small=st.booleans())
@settings(max_examples=80, deadline=None)
def test_everybody_gets_his_own_answer_once_and_in_flight_ends_at_zero(
    with_shared: bool, steps: list[Step], slots: int, max_queue: int, small: bool
) -> None:
    async def scenario() -> None:
        shared = FakeShared() if with_shared else None
        bench = CacheBench(slots, max_queue, 2500 if small else 10**6, shared)
        asked: list[Asked] = []
        for what, which in steps:
            waiting = [one for one in asked if one.answer is None and not one.left]
            if what == "ask":
                seconds = (0.5, 1, 2, 4)[which % 4]
                asked.append(bench.ask(which % 3, seconds, Priority(which % 3), _HEADERS[which % len(_HEADERS)]))
            elif what in ("finish", "fail") and bench.running:
                bench.finish(ZeroDivisionError() if what == "fail" else None)
            elif what == "leave" and waiting:
                waiting[which % len(waiting)].leave()
            elif what in ("found", "not found") and shared is not None and shared.asked:
                answer_shared(shared, bench, found=what == "found")
            else:
                await asyncio.sleep(which * 0.1)
            waiting = [one for one in asked if one.answer is None and not one.left]
            assert bench.counts[0] >= len(waiting), "whoever waits is in flight"
            assert len(bench.running) == slots or bench.dispatcher.queue_depth == 0, "nobody waits beside a free slot"
            assert bench.value("cache_bytes") <= (2500 if small else 10**6)
        while shared is not None and shared.asked:
            answer_shared(shared, bench, found=False)
        while bench.running:
            bench.finish()
        await asyncio.sleep(10)
        for one in asked:
            assert one.left or one.answer is not None, "nobody is forgotten"
            assert not isinstance(one.answer, float) or one.answer == one.value, "everybody got his own answer"
        assert bench.counts == (0, 0)

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(scenario())


def answer_shared(shared: FakeShared, bench: CacheBench, found: bool) -> None:
    """The oldest question; what is found is right, as its key says what was asked."""
    key = next(iter(shared.asked))
    values = {bench.caching._keys.key({"x": np.array([[value]], np.float32)}): value for value in range(3)}
    shared.answer(values[key] if found else None, remaining=5)
