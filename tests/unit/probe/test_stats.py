"""Verdicts are arithmetic: percentiles by nearest rank, splits by standard deviations."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inflight_probe.stats import Share, percentile, shares


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        pytest.param([3, 1, 2], 50, 2, id="the median of an odd count"),
        pytest.param(range(1, 101), 99, 99, id="p99 of 100 leaves one above"),
        pytest.param(range(1, 201), 99, 198, id="p99 of 200 leaves two above"),
        pytest.param([7], 99, 7, id="one value is every percentile"),
        pytest.param([1, 2], 0, 1, id="p0 is the smallest"),
    ],
)
def test_a_percentile_is_the_nearest_rank(values, q, expected):
    assert percentile(values, q) == expected


def test_no_values_have_no_percentile():
    assert math.isnan(percentile([], 99))


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_enough_values_do_not_exceed_the_percentile(values, q):
    limit = percentile(values, q)
    assert limit in values
    assert sum(v <= limit for v in values) >= len(values) * q / 100 - 1e-6


@pytest.mark.parametrize(
    ("weight", "count", "total", "fair"),
    [
        pytest.param(95, 9_500, 10_000, True, id="exactly the weight"),
        pytest.param(95, 9_413, 10_000, True, id="just inside 4 sigma"),
        pytest.param(95, 9_412, 10_000, False, id="just outside 4 sigma"),
        pytest.param(50, 5_200, 10_000, True, id="4 sigma at even weights is 200"),
        pytest.param(50, 5_201, 10_000, False, id="one more than chance allows"),
        pytest.param(0, 0, 10_000, True, id="weight 0 gets nothing"),
        pytest.param(0, 1, 10_000, False, id="weight 0 got one"),
        pytest.param(100, 9_999, 10_000, False, id="weight 100 lost one"),
        pytest.param(50, 0, 0, False, id="no traffic proves nothing"),
    ],
)
def test_a_split_is_judged_by_four_sigma(weight, count, total, fair):
    assert Share("v", weight, count, total).within(4) is fair


def test_a_variant_without_a_weight_is_held_against_zero():
    stable, stranger = shares({"stable": 9, "old": 1}, {"stable": 100})
    assert (stable.observed, stable.within()) == (90, False)
    assert (stranger.variant, stranger.weight, stranger.within()) == ("old", 0, False)
