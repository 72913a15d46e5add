"""The line through what was measured: a·n + b seconds for n rows."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.decide.service_time import ServiceTime


def measured(*samples: tuple[int, float]) -> ServiceTime:
    """What is known after these (rows, seconds)."""
    service = ServiceTime()
    for rows, seconds in samples:
        service.observe(rows, seconds)
    return service


def test_nothing_is_known_before_the_first_measurement() -> None:
    service = ServiceTime()
    assert not service.measured
    assert (service.expect(1), service.at_most(100)) == (0, 0)


def test_one_size_says_nothing_about_larger_ones() -> None:
    service = measured(*[(1, 0.1)] * 10)
    assert service.expect(1) == pytest.approx(0.1)
    assert service.expect(64) == pytest.approx(0.1)


@pytest.mark.parametrize(("base", "per_row"), [(0.011, 0.00004), (0.0, 0.002), (0.05, 0.0)])
def test_base_and_slope_are_found(base: float, per_row: float) -> None:
    service = measured(*[(n, base + per_row * n) for n in (1, 32, 8, 64, 1, 16, 64, 2)])
    for rows in (1, 10, 64):
        assert service.expect(rows) == pytest.approx(base + per_row * rows)
    assert service.at_most(32) == pytest.approx(service.expect(32), abs=1e-6), "an exact line leaves no deviation"


def test_few_predictions_exceed_the_upper_estimate() -> None:
    chance = random.Random(1)  # noqa: S311 - it is for a test
    draws = [(n, 0.01 + 0.0005 * n + chance.gauss(0, 0.002)) for n in [1, 4, 16, 32] * 40]
    service = measured(*draws)
    exceeded = sum(seconds > service.at_most(rows) for rows, seconds in draws)
    assert exceeded <= 0.08 * len(draws)


def test_what_was_measured_long_ago_is_forgotten() -> None:
    service = measured(*[(1, 1.0)] * 100, *[(1, 0.01)] * 100)
    assert service.expect(1) == pytest.approx(0.01, rel=0.7)


def test_a_steeper_line_than_the_data_allow_is_never_believed() -> None:
    """Noise must make neither the base negative nor a large batch free."""
    down = measured((1, 0.2), (64, 0.1), (1, 0.2), (64, 0.1))
    up = measured((10, 0.001), (11, 0.2), (10, 0.001), (11, 0.2))
    assert down.expect(64) > 0
    assert down.expect(1000) >= down.expect(1) > 0
    assert up.expect(1) >= 0


_SAMPLES = st.lists(st.tuples(st.integers(1, 4096), st.floats(1e-6, 600)), min_size=1, max_size=60)


@given(samples=_SAMPLES)
def test_estimates_are_never_negative_and_never_fall_with_size(samples: list[tuple[int, float]]) -> None:
    service = measured(*samples)
    estimates = [service.expect(rows) for rows in (1, 10, 100, 4096)]
    assert all(value >= -1e-9 for value in estimates)
    assert all(earlier <= later + 1e-9 for earlier, later in itertools.pairwise(estimates))
    assert service.at_most(10) >= service.expect(10)
