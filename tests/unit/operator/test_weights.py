"""The weights in force: exact, never on a variant that can't serve, never ahead of capacity."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inflight_operator.decide import demand
from inflight_operator.decide.weights import HOLD_SECONDS, Capacity, decide, share

IDLE, UNKNOWN = 0.0, None


def able(ready: int = 1, target: int = 2, most: int = 10) -> Capacity:
    return Capacity(ready, target, most)


@pytest.mark.parametrize(
    ("wanted", "current", "capacity", "demand", "expected"),
    [
        pytest.param(
            {"a": 95, "b": 5}, {}, {"a": able(), "b": able()}, IDLE, {"a": 95, "b": 5}, id="at first, as asked"
        ),
        pytest.param(
            {"a": 95, "b": 5},
            {},
            {"a": able(), "b": able(0)},
            IDLE,
            {"a": 100, "b": 0},
            id="unready gives its weight away",
        ),
        pytest.param(
            {"a": 50, "b": 30, "c": 20},
            {},
            {"a": able(0), "b": able(), "c": able()},
            IDLE,
            {"a": 0, "b": 60, "c": 40},
            id="pro rata to the others",
        ),
        pytest.param(
            {"a": 50, "b": 50},
            {},
            {"a": able(0), "b": able(0)},
            IDLE,
            {"a": 0, "b": 0},
            id="nothing ready, nothing routed",
        ),
        pytest.param(
            {"a": 5, "b": 95},
            {"a": 95, "b": 5},
            {"a": able(5), "b": able(1)},
            IDLE,
            {"a": 5, "b": 95},
            id="without traffic a change is at once",
        ),
        pytest.param(
            {"a": 5, "b": 95},
            {"a": 95, "b": 5},
            {"a": able(5), "b": able(1)},
            10.0,
            {"a": 84, "b": 16},
            id="one pod of target 2 takes less than a fifth of ten in flight, with some room",
        ),
        pytest.param(
            {"a": 5, "b": 95},
            {"a": 80, "b": 20},
            {"a": able(5), "b": able(6)},
            10.0,
            {"a": 5, "b": 95},
            id="the rest follows when the pods are there",
        ),
        pytest.param(
            {"a": 5, "b": 95},
            {"a": 95, "b": 5},
            {"a": able(1), "b": able(1)},
            2.0,
            {"a": 5, "b": 95},
            id="one pod takes all that is meant for one",
        ),
        pytest.param(
            {"a": 5, "b": 95},
            {"a": 95, "b": 5},
            {"a": able(5), "b": able(2, most=2)},
            100.0,
            {"a": 5, "b": 95},
            id="at maxReplicas there is nothing to wait for",
        ),
        pytest.param(
            {"a": 95, "b": 5},
            {"a": 95, "b": 5},
            {"a": able(0), "b": able(1)},
            50.0,
            {"a": 0, "b": 100},
            id="a dead variant's traffic moves whatever the capacity",
        ),
        pytest.param(
            {"a": 5, "b": 95},
            {"a": 95, "b": 5},
            {"a": able(5), "b": able(5)},
            UNKNOWN,
            {"a": 95, "b": 5},
            id="unknown demand holds",
        ),
    ],
)
def test_weights_in_force(wanted, current, capacity, demand, expected):
    assert dict(decide(wanted, current, capacity, demand, 0.0).effective) == expected


def test_after_holding_long_enough_the_users_wish_wins_over_caution():
    wanted, current = {"a": 5, "b": 95}, {"a": 95, "b": 5}
    capacity = {"a": able(), "b": able()}
    assert decide(wanted, current, capacity, None, HOLD_SECONDS - 1).holding
    assert dict(decide(wanted, current, capacity, None, HOLD_SECONDS).effective) == wanted


def test_a_variant_that_needs_more_replicas_is_named():
    decided = decide({"a": 5, "b": 95}, {"a": 95, "b": 5}, {"a": able(5), "b": able(1)}, 10.0, 0.0)
    assert decided.waiting == ("b",)
    assert not decided.settled


@given(st.floats(0.1, 500), st.integers(1, 64), st.integers(1, 100), st.integers(0, 99))
def test_what_the_hpa_makes_of_the_told_demand_is_enough_for_the_goal(total, target, goal, now):
    """Also when it stops short by its tolerance."""
    now = min(now, goal - 1)
    wanted, current = {"a": 100 - goal, "b": goal}, {"a": 100 - now, "b": now}
    told = demand.decide({"a": total, "b": 0.0}, wanted, current)["b"]
    replicas = max(1, math.ceil(told / target / 1.1))
    capacity = {"a": able(1000, target, 10_000), "b": able(replicas, target, 10_000)}
    assert dict(decide(wanted, current, capacity, total, 0.0).effective) == wanted


names = st.sampled_from("abcdefgh")


@given(st.dictionaries(names, st.integers(0, 100), min_size=1), st.integers(0, 1000))
def test_shares_sum_exactly_and_are_within_one_of_proportion(parts, total):
    shares = share(total, parts)
    whole = sum(parts.values())
    assert sum(shares.values()) == (total if whole else 0)
    assert all(whole == 0 or abs(shares[name] - total * parts[name] / whole) < 1 for name in parts)


@given(
    st.dictionaries(names, st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 5)), min_size=1),
    st.one_of(st.none(), st.floats(0, 500)),
    st.floats(0, 20),
)
def test_whatever_happens_weights_sum_to_100_or_nothing_is_ready(table, demand, unknown_for):
    wanted = share(100, {name: row[0] for name, row in table.items()})
    current = {name: row[1] for name, row in table.items()}
    capacity = {name: Capacity(row[2], 2, 5) for name, row in table.items()}
    effective = decide(wanted, current, capacity, demand, unknown_for).effective
    possible = any(wanted[name] and capacity[name].ready for name in table)
    held = any(current[name] and capacity[name].ready for name in table)
    assert all(weight >= 0 for weight in effective.values())
    assert all(effective[name] == 0 for name in table if capacity[name].ready == 0)
    assert sum(effective.values()) in ((100,) if possible else (0, 100) if held else (0,))


def test_what_does_not_share_the_weight_brings_nobody_demand():
    """A shadow's copies, and whoever asks for one variant by its path."""
    measured = {"stable": 6.0, "candidate": 2.0, "shadow": 8.0}
    told = demand.decide(measured, {"stable": 50, "candidate": 50}, {"stable": 95, "candidate": 5})
    assert told["candidate"] == pytest.approx(0.5 * 8.0 * demand.HEADROOM)
    assert told["shadow"] == 8.0
    unknown = {**measured, "shadow": None}
    assert demand.whole(unknown, {"stable": 100}, {"stable": 95, "candidate": 5}) == 8.0
    assert demand.whole(unknown, {"shadow": 100}, {"stable": 100}) is None
