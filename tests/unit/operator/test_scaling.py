"""Replicas where no HPA can set them: the HPA's own rules, in fake time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inflight_operator.decide.rollout import Limits
from inflight_operator.decide.scaling import Scaling, Wish, decide

LIMITS = Limits(min_replicas=1, max_replicas=10, target_in_flight=2)
WINDOW = 300.0


def ask(current: int, demand: float | None, wishes: tuple[Wish, ...] = ((0.0, 1),), now: float = 1000.0) -> Scaling:
    """After a time in which one replica was enough."""
    return decide(current, demand, LIMITS, window=WINDOW, wishes=wishes, now=now)


@pytest.mark.parametrize(
    ("current", "demand", "replicas"),
    [
        pytest.param(2, 4.0, 2, id="as many as there should be"),
        pytest.param(2, 4.4, 2, id="10 % more is tolerated"),
        pytest.param(2, 4.5, 3, id="more than that is not"),
        pytest.param(1, 9.0, 5, id="up in one step"),
        pytest.param(1, 500.0, 10, id="never above maxReplicas"),
        pytest.param(4, 0.0, 1, id="never below minReplicas"),
        pytest.param(4, 3.5, 2, id="down in one step"),
        pytest.param(10, 18.5, 10, id="10 % less is tolerated"),
        pytest.param(12, None, 10, id="without data the bounds still hold"),
        pytest.param(3, None, 3, id="without data nothing changes"),
        pytest.param(0, 9.0, 0, id="zero is somebody's decision"),
        pytest.param(1, 2.0000001, 1, id="rounding is no demand"),
    ],
)
def test_replicas_follow_the_demand(current, demand, replicas):
    assert ask(current, demand).replicas == replicas


def test_a_fresh_operator_shrinks_nothing_before_the_window_is_over():
    first = ask(6, 2.0, wishes=())
    assert (first.replicas, first.wait) == (6, WINDOW)
    almost = ask(6, 2.0, first.wishes, 1000.0 + WINDOW - 1)
    assert (almost.replicas, almost.wait) == (6, 1.0)
    assert ask(6, 2.0, almost.wishes, 1000.0 + WINDOW).replicas == 1


def test_a_lull_shrinks_to_the_most_that_the_window_wanted():
    wishes: tuple[Wish, ...] = ()
    current = 8
    for now, demand in ((0.0, 16.0), (100.0, 8.0), (200.0, 2.0)):
        step = decide(current, demand, LIMITS, window=WINDOW, wishes=wishes, now=now)
        wishes, current = step.wishes, step.replicas
        assert current == 8
    assert decide(current, 2.0, LIMITS, window=WINDOW, wishes=wishes, now=301.0).replicas == 4, (
        "what was wanted at 100 s"
    )
    assert decide(current, 2.0, LIMITS, window=WINDOW, wishes=wishes, now=401.0).replicas == 1


def test_no_data_forgets_nothing_and_counts_for_nothing():
    busy = decide(8, 16.0, LIMITS, window=WINDOW, wishes=(), now=0.0)
    blind = decide(8, None, LIMITS, window=WINDOW, wishes=busy.wishes, now=10.0)
    assert blind == Scaling(8, busy.wishes, None)


def test_a_window_of_zero_shrinks_at_once():
    assert decide(8, 2.0, LIMITS, window=0.0, wishes=(), now=0.0).replicas == 1


LOADS = st.lists(st.tuples(st.floats(0.1, 60.0), st.none() | st.floats(0.0, 40.0)), min_size=1, max_size=60)


@given(LOADS, st.integers(1, 10), st.sampled_from([0.0, 30.0, 300.0]))
def test_it_never_leaves_the_bounds_nor_starves_a_known_demand_nor_remembers_without_end(loads, current, window):
    wishes: tuple[Wish, ...] = ()
    now = 0.0
    for pause, demand in loads:
        now += pause
        step = decide(current, demand, LIMITS, window=window, wishes=wishes, now=now)
        assert LIMITS.min_replicas <= step.replicas <= LIMITS.max_replicas
        if demand is None:
            assert step.replicas == current
        else:
            enough = min(LIMITS.max_replicas, math.ceil(demand / LIMITS.target_in_flight / 1.11))
            assert step.replicas >= enough
        assert len(step.wishes) <= LIMITS.max_replicas + 1
        assert step.wait is None or 0 < step.wait <= window + 1e-6
        current, wishes = step.replicas, step.wishes
