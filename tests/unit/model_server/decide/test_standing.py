"""A queue that stands has to dissolve; a burst has not."""

from __future__ import annotations

import math

import pytest

from model_server.decide.standing import CALM, Standing, target

SERVICE = 0.1


def after(waits: list[tuple[float, float]]) -> Standing:
    """What is known after requests left the queue: (when, having waited so long)."""
    state = CALM
    for now, waited in waits:
        state = state.after(waited, now, SERVICE)
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
    assert after(waits).longest_wait(now, SERVICE) == pytest.approx(limit)


def test_both_bounds_grow_with_the_service_time() -> None:
    assert target(0.0001) == 0.005
    assert target(0.1) == pytest.approx(0.5)
    assert Standing(0.0).longest_wait(10.0, 1.0) == math.inf, "20 services are 20 s here"
