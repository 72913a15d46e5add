"""A queue that stands has to dissolve; a burst has not."""

from __future__ import annotations

import math

import pytest

from model_server.decide.standing import CALM, Standing, bounds

ALLOWED = bounds(service=0.1, patience=2.0)


def after(waits: list[tuple[float, float]]) -> Standing:
    """What is known after requests left the queue: (when, having waited so long)."""
    state = CALM
    for now, waited in waits:
        state = state.after(waited, now, ALLOWED)
    return state


@pytest.mark.parametrize(
    ("waits", "now", "limit"),
    [
        pytest.param([], 0, math.inf, id="nobody waited"),
        pytest.param([(t / 10, 0.4) for t in range(100)], 10, math.inf, id="short waits, however long"),
        pytest.param([(t / 10, 0.9) for t in range(10)], 1, math.inf, id="long waits for a second: a burst"),
        pytest.param([(t / 10, 0.9) for t in range(25)], 2.5, 0.5, id="long waits for two seconds: it stands"),
        pytest.param(
            [*((t / 10, 0.9) for t in range(25)), (2.5, 0.1)], 2.6, math.inf, id="one short wait: it has dissolved"
        ),
    ],
)
def test_a_queue_stands_when_all_have_waited_long_for_long(
    waits: list[tuple[float, float]], now: float, limit: float
) -> None:
    assert after(waits).longest_wait(now, ALLOWED) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("service", "patience", "target", "interval"),
    [
        pytest.param(0.1, 2, 0.5, 2, id="five services, and a quarter of the time"),
        pytest.param(0.1, 10, 2.5, 10, id="with more time, more patience: replicas may be on their way"),
        pytest.param(1, 10, 5, 20, id="a slow model"),
        pytest.param(0.0001, 1, 0.25, 1, id="a quick one"),
    ],
)
def test_the_bounds_grow_with_service_time_and_patience(
    service: float, patience: float, target: float, interval: float
) -> None:
    found = bounds(service, patience)
    assert (found.target, found.interval) == pytest.approx((target, interval))
