"""What a free slot runs next."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.decide.batch_plan import NO_BATCHING, Limits, Traffic, plan
from model_server.decide.service_time import ServiceTime

NOW = 100.0


@dataclass(frozen=True)
class Queued:
    """One that waits; `left` seconds before its deadline, for `age` seconds."""

    name: str
    rows: int = 1
    signature: str | None = "s"
    left: float = 60
    age: float = 0

    @property
    def deadline(self) -> float:
        return NOW + self.left

    @property
    def arrived(self) -> float:
        return NOW - self.age


def service(base: float = 0.1, per_row: float = 0.0) -> ServiceTime:
    known = ServiceTime()
    for rows in (1, 8) * 10:
        known.observe(rows, base + per_row * rows)
    return known


def names(items: tuple[Queued, ...]) -> str:
    return "".join(item.name for item in items)


BATCH = Limits(max_rows=4)


@pytest.mark.parametrize(
    ("queue", "limits", "runs"),
    [
        pytest.param([], BATCH, "", id="nobody waits"),
        pytest.param([Queued("a"), Queued("b")], NO_BATCHING, "a", id="no batching: one"),
        pytest.param([Queued("a"), Queued("b"), Queued("c")], BATCH, "abc", id="all there are"),
        pytest.param([Queued(n) for n in "abcde"], BATCH, "abcd", id="as many rows as allowed"),
        pytest.param([Queued("a", 3), Queued("b", 2), Queued("c", 1)], BATCH, "ac", id="whoever still fits"),
        pytest.param([Queued("a"), Queued("b", signature="t"), Queued("c")], BATCH, "ac", id="of one signature"),
        pytest.param([Queued("a", signature=None), Queued("b", signature=None)], BATCH, "a", id="what runs alone"),
        pytest.param([Queued("a", 4), Queued("b")], BATCH, "a", id="a full one at once"),
    ],
)
def test_who_runs(queue: list[Queued], limits: Limits, runs: str) -> None:
    assert names(plan(queue, NOW, limits, service()).run) == runs


def test_the_dead_are_told_apart_from_the_hopeless() -> None:
    queue = [Queued("a", left=-1), Queued("b", left=0.05), Queued("c", left=1)]
    made = plan(queue, NOW, BATCH, service(0.1))
    assert (names(made.expired), names(made.hopeless), names(made.run)) == ("a", "b", "c")


def test_with_nothing_running_the_first_is_run_whatever_was_measured() -> None:
    queue = [Queued("a", left=0.05), Queued("b", left=0.05)]
    made = plan(queue, NOW, NO_BATCHING, service(10), Traffic(probe=True))
    assert (names(made.run), names(made.hopeless)) == ("a", "")


def test_a_batch_grows_past_nobodys_deadline() -> None:
    queue = [Queued("a", left=0.25), Queued("b"), Queued("c"), Queued("d")]
    made = plan(queue, NOW, Limits(max_rows=8), service(base=0.0, per_row=0.1))
    assert names(made.run) == "ab", "three rows would take 0.3 s"


@pytest.mark.parametrize(
    ("queue", "again"),
    [
        pytest.param([Queued("a", age=0.002)], NOW + 0.008, id="until the oldest has waited its time"),
        pytest.param([Queued("a", age=0.02)], None, id="which it has"),
        pytest.param([Queued("a", 4)], None, id="not when it is full"),
        pytest.param([Queued("a", signature=None)], None, id="not for what runs alone"),
        pytest.param([Queued("a", left=0.105)], NOW + 0.005, id="not past its deadline"),
    ],
)
def test_a_free_slot_gathers_for_as_long_as_was_asked(queue: list[Queued], again: float | None) -> None:
    made = plan(queue, NOW, Limits(max_rows=4, max_delay=0.01), service(0.1))
    assert made.look_again == (again if again is None else pytest.approx(again))
    assert bool(made.run) is (again is None)


@pytest.mark.parametrize(
    ("queue", "share", "again"),
    [
        pytest.param("a", 0.5, None, id="a lone client is never kept waiting"),
        pytest.param("a", 32, NOW + 0.035, id="the first of many that are about to come"),
        pytest.param("abc" * 10 + "d", 32, None, id="nearly all of them are there"),
    ],
)
def test_a_slot_lingers_for_those_that_lately_came_at_once(queue: str, share: float, again: float | None) -> None:
    """0.35 of what a prediction costs whatever its size: 0.1 s here."""
    made = plan([Queued(name) for name in queue], NOW, Limits(64), service(0.1, 0.001), Traffic(share=share))
    assert made.look_again == (again if again is None else pytest.approx(again))


def test_a_slot_lingers_from_when_it_came_free_not_from_when_the_first_came() -> None:
    """Those who came while it was busy are not what it waits for."""
    waiting, traffic = [Queued("a", age=1)] * 20, Traffic(share=32, free_since=NOW - 0.01)
    made = plan(waiting, NOW, Limits(64), service(0.1, 0.001), traffic)
    assert made.look_again == pytest.approx(NOW + 0.025)


def test_a_slot_does_not_linger_for_a_model_that_gains_nothing_by_it() -> None:
    made = plan([Queued("a")], NOW, Limits(64), service(base=0.0, per_row=0.1), Traffic(share=32))
    assert names(made.run) == "a"


_QUEUES = st.lists(
    st.builds(Queued, st.text("abc", min_size=1, max_size=3), st.integers(1, 8), st.sampled_from(["s", "t", None]),
              st.floats(-1, 10)),
    max_size=30,
)  # fmt: skip


@given(queue=_QUEUES, max_rows=st.integers(1, 8))
def test_no_plan_breaks_a_bound(queue: list[Queued], max_rows: int) -> None:
    known = service(0.1, 0.05)
    made = plan(queue, NOW, Limits(max_rows), known)
    rows = sum(item.rows for item in made.run)
    assert len(made.run) <= 1 or rows <= max_rows
    assert len({item.signature for item in made.run}) <= 1
    assert all(item.deadline >= NOW + known.at_most(rows) for item in made.run)
    assert all(item.deadline <= NOW for item in made.expired)
    told = [*made.run, *made.expired, *made.hopeless]
    assert len({id(item) for item in told}) == len(told), "nobody is told two things"
    alive = [item for item in queue if item.deadline - NOW >= known.at_most(item.rows)]
    assert bool(made.run) is bool(alive), "a slot stays free only when nobody can be served"
