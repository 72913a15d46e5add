"""The delay comes from the healthy pods and from how much was asked twice; without room or knowledge there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inflight_operator.decide.hedging import LEAST, MOST, Hedge, decide
from inflight_operator.xds.model import Pace

FAST = Pace(in_progress=0.5, sent=25, answered=25)  # 20 ms
SLOW = Pace(in_progress=2.0, sent=10, answered=10)  # 200 ms
FIVE = [FAST, FAST, FAST, FAST, SLOW]


def asked_twice(share: float) -> list[Pace]:
    """Four fast pods; so much more was sent than answered."""
    return [Pace(0.5, 25 * (1 + share), 25)] * 4


def full(in_progress: float) -> list[Pace]:
    """Four pods that have so many requests at any time."""
    return [Pace(in_progress, 25, 25)] * 4


@pytest.mark.parametrize(
    ("before", "paces", "room", "expected"),
    [
        pytest.param(None, FIVE, (5, 1), Hedge(0.06), id="three times what the median pod takes"),
        pytest.param(None, [FAST, SLOW], (2, 1), Hedge(0.06), id="of two the faster one"),
        pytest.param(None, [FAST, FAST, SLOW], (3, 1), Hedge(0.06), id="one slow of three"),
        pytest.param(0.06, asked_twice(0.20), (4, 1), Hedge(0.09), id="far too much was asked twice: later"),
        pytest.param(0.06, asked_twice(0.10), (4, 1), Hedge(0.083876), id="too much: so much later that it will do"),
        pytest.param(0.06, asked_twice(0.055), (4, 1), Hedge(0.066588), id="a little too much: a little later"),
        pytest.param(0.06, asked_twice(0.01), (4, 1), Hedge(0.048), id="little was: sooner"),
        pytest.param(0.06, asked_twice(0.04), (4, 1), Hedge(0.06), id="as much as it may: as it is"),
        pytest.param(0.031, asked_twice(0.0), (4, 1), Hedge(0.031), id="never sooner than a healthy pod answers"),
        pytest.param(5.0, asked_twice(0.9), (4, 1), Hedge(0.4), id="nor so late that it is for nothing"),
        pytest.param(None, None, (4, 1), Hedge(None, "the load isn't known yet"), id="unknown from the start"),
        pytest.param(0.06, None, (4, 1), Hedge(0.06), id="unknown: as it was"),
        pytest.param(0.06, [], (4, 1), Hedge(0.06), id="nobody asks: as it was"),
        pytest.param(
            0.06, full(0.76), (4, 1), Hedge(None, "more than 75% of the pods' slots are in use"), id="no room"
        ),
        pytest.param(
            None, full(0.69), (4, 1), Hedge(None, "more than 68% of the pods' slots are in use"), id="not yet"
        ),
        pytest.param(0.026, full(0.7), (4, 1), Hedge(0.042), id="still room"),
        pytest.param(None, full(2.0), (4, 4), Hedge(0.24), id="half of four slots each"),
        pytest.param(None, [*full(0.5), Pace(9, 9, 9)], (5, 1), Hedge(0.06), id="what waits for a slow pod is no sign"),
        pytest.param(None, full(0.9), (9, 1), Hedge(0.108), id="most pods are idle"),
        pytest.param(0.06, [FAST], (1, 1), Hedge(None, "there is no other pod"), id="one pod"),
        pytest.param(0.06, [Pace(0.01, 0.5, 0.5)] * 2, (2, 1), Hedge(0.06), id="quiet: as it was"),
        pytest.param(None, [Pace(0, 1, 1)] * 2, (2, 1), Hedge(None, "there are too few requests"), id="quiet so far"),
    ],
)
def test_after_how_long_another_pod_is_asked(before, paces, room, expected):
    pods, slots = room
    found = decide(Hedge(before), paces, pods=pods, slots=slots, budget=0.05)
    after = expected.after if expected.after is None else pytest.approx(expected.after, rel=1e-4)
    assert (found.after, found.why) == (after, expected.why)


@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.1, 100), st.floats(0.1, 100)), min_size=2, max_size=9),
    st.none() | st.floats(0.001, 100),
)
def test_it_is_always_between_the_bounds_or_as_it_was(pods, before):
    paces = [Pace(*pod) for pod in pods]
    found = decide(Hedge(before), paces, pods=len(paces), slots=200, budget=0.05).after
    latencies = [p.in_progress / p.answered for p in paces]
    if found is not None and found != before:
        assert LEAST * min(latencies) * 0.999 <= found <= MOST * max(latencies) * 1.001


def exponential(delay: float) -> float:
    """How many requests take longer than that, of 20 ms on average."""
    return math.exp(-delay / 0.02)


def bimodal(delay: float) -> float:
    """A tenth of them takes ten times as long."""
    return 0.1 if delay < 0.1 else 0.0


def simulated(budget: float, longer: Callable[[float], float], rounds: int = 240) -> list[tuple[float, float]]:
    """The delays, and what was asked twice with each; 240 decisions are 20 minutes."""
    hedge, seen = Hedge(None), []
    for _ in range(rounds):
        share = longer(hedge.after) if hedge.after else 0.0
        seen.append((hedge.after or 0.0, share))
        hedge = decide(hedge, asked_twice(share), pods=4, slots=1, budget=budget)
    return seen


@pytest.mark.parametrize("budget", [0.02, 0.05, 0.20])
@pytest.mark.parametrize("longer", [exponential, bimodal])
def test_the_share_that_is_asked_twice_settles_below_the_budget(budget, longer):
    seen = simulated(budget, longer)[12:]
    assert sum(share for _, share in seen) / len(seen) <= budget
    assert max(share for _, share in seen[60:]) <= max(budget * 1.3, 0.1)


@pytest.mark.parametrize("budget", [0.05, 0.09])
@pytest.mark.parametrize("longer", [exponential, bimodal])
def test_the_delay_comes_to_rest(longer, budget):
    """Every change is told to all routers."""
    delays = [delay for delay, _ in simulated(budget, longer)]
    changes = [n for n, (one, other) in enumerate(pairwise(delays)) if one != other]
    assert len(changes) < 25
    assert len([n for n in changes if n > 120]) <= 6


def test_what_was_too_soon_is_tried_again_after_a_while():
    """The world may have changed: here the slow tenth is gone after ten minutes."""
    hedge = Hedge(None)
    for number in range(480):
        share = bimodal(hedge.after) if hedge.after and number < 120 else 0.0
        hedge = decide(hedge, asked_twice(share), pods=4, slots=1, budget=0.05)
    assert hedge.after == pytest.approx(LEAST * 0.02, rel=0.2)
