"""Of pods that are too many the idlest are marked, and marks change only where it makes a difference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inflight_operator.decide.leaving import decide, surplus
from inflight_operator.decide.rollout import Limits

LIMITS = Limits(min_replicas=2, max_replicas=10, target_in_flight=4)


@pytest.mark.parametrize(
    ("replicas", "demand", "expected"),
    [
        pytest.param(5, 20.0, 0, id="as many as are needed"),
        pytest.param(5, 8.0, 3, id="two would do"),
        pytest.param(5, 0.0, 3, id="never below the minimum"),
        pytest.param(5, 19.0, 0, id="within the tolerance"),
        pytest.param(5, 36.0, 0, id="too few"),
        pytest.param(2, 0.0, 0, id="the minimum is there"),
        pytest.param(12, 400.0, 2, id="the maximum has been lowered"),
        pytest.param(5, None, 0, id="unknown"),
        pytest.param(0, 3.0, 0, id="none by hand"),
    ],
)
def test_how_many_will_go(replicas, demand, expected):
    assert surplus(replicas, demand, LIMITS) == expected


PODS = {"a": 3.0, "b": 0.0, "c": 1.0, "d": 2.0}


@pytest.mark.parametrize(
    ("before", "count", "expected"),
    [
        pytest.param("", 0, "", id="none has to go"),
        pytest.param("", 1, "b", id="the idlest"),
        pytest.param("", 2, "bc", id="the two idlest"),
        pytest.param("d", 1, "b", id="another one is idler by far"),
        pytest.param("c", 1, "c", id="another one is idler by a request: not worth a write"),
        pytest.param("bc", 0, "", id="the demand is back"),
        pytest.param("x", 1, "b", id="one that is gone"),
        pytest.param("", 9, "abcd", id="more than there are"),
    ],
)
def test_who_is_marked(before, count, expected):
    assert decide(frozenset(before), PODS, surplus=count) == set(expected)


@given(
    st.dictionaries(st.integers(0, 30).map(str), st.floats(0, 20), max_size=12),
    st.frozensets(st.integers(0, 30).map(str)),
    st.integers(0, 12),
)
def test_those_that_stay_are_at_most_a_request_idler_and_the_choice_is_at_rest(pods, before, count):
    chosen = decide(before, pods, surplus=count)
    assert len(chosen) == min(count, len(pods))
    stay = [pods[a] for a in pods if a not in chosen]
    assert not chosen or not stay or max(pods[a] for a in chosen) <= min(stay) + 1
    assert decide(chosen, pods, surplus=count) == chosen
