"""The floor under an HPA that learns of traffic only when it is there."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inflight_operator.decide import demand, floor, weights
from inflight_operator.decide.floor import LAG_SECONDS, Floor, decide
from inflight_operator.decide.rollout import Limits

LIMITS = Limits(min_replicas=2, max_replicas=10, target_in_flight=2)
NOW = 1000.0
LATER = NOW + LAG_SECONDS


@pytest.mark.parametrize(
    ("ahead", "before", "expected"),
    [
        pytest.param(None, None, None, id="nothing gains: the user's minReplicas"),
        pytest.param(13.0, None, Floor(7, LATER), id="as many as the share needs"),
        pytest.param(1.0, None, Floor(2, LATER), id="never below minReplicas"),
        pytest.param(99.0, None, Floor(10, LATER), id="never above maxReplicas"),
        pytest.param(9.0, Floor(7, LATER), Floor(7, LATER), id="a demand that wavers lowers nothing"),
        pytest.param(None, Floor(7, NOW + 1), Floor(7, NOW + 1), id="held until the HPA can know the load"),
        pytest.param(None, Floor(7, NOW), None, id="and then let go"),
        pytest.param(9.0, Floor(7, NOW), Floor(5, LATER), id="what is over counts for nothing"),
        pytest.param(None, Floor(40, NOW + 1), Floor(10, NOW + 1), id="a maxReplicas that fell is kept"),
    ],
)
def test_the_floor(ahead, before, expected):
    assert decide(LIMITS, ahead, before, NOW) == expected


@given(st.floats(0.1, 500), st.integers(1, 64), st.integers(1, 100), st.integers(0, 99))
def test_the_weight_asked_for_is_always_reached(total, target, goal, begin):
    """In turns: the operator moves what fits and sets the floor, the HPA follows what is there and the floor."""
    limits = Limits(1, 10_000, target)
    wanted = {"a": 100 - goal, "b": goal}
    begin = min(begin, goal - 1)
    weight, replicas, kept = {"a": 100 - begin, "b": begin}, 1, None
    for turn in range(3):
        capacity = {
            "a": weights.Capacity(10_000, target, 10_000),
            "b": weights.Capacity(replicas, target, limits.max_replicas),
        }
        decided = weights.decide(wanted, weight, capacity, total, 0.0)
        weight = dict(decided.effective)
        measured = {name: total * share / 100 for name, share in weight.items()}
        ahead = None if decided.settled else demand.decide(measured, wanted, weight)["b"]
        kept = floor.decide(limits, ahead, kept, float(turn))
        replicas = max(1, math.ceil(measured["b"] / target / 1.1), kept.replicas if kept else 1)
    assert weight == wanted
