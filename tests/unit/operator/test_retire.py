"""A revision without weight goes when nobody can be waiting for it any more."""

from __future__ import annotations

import pytest

from inflight_operator.decide.demand import decide as demand
from inflight_operator.decide.retire import PROPAGATION_SECONDS, decide

TIMEOUT = 10.0


@pytest.mark.parametrize(
    ("weightless_for", "in_flight", "due"),
    [
        pytest.param(None, 0.0, False, id="routers have not acknowledged"),
        pytest.param(0.0, 0.0, False, id="endpoints still propagate"),
        pytest.param(PROPAGATION_SECONDS, 0.0, True, id="idle and propagated"),
        pytest.param(PROPAGATION_SECONDS, 0.5, False, id="somebody waits for an answer"),
        pytest.param(PROPAGATION_SECONDS, None, False, id="unknown is not idle"),
        pytest.param(PROPAGATION_SECONDS + TIMEOUT, None, True, id="no request can be that old"),
    ],
)
def test_when_a_revision_may_go(weightless_for, in_flight, due):
    answer = decide(weightless_for, in_flight, TIMEOUT)
    assert answer.due is due
    assert due or answer.wait > 0


@pytest.mark.parametrize(
    ("measured", "goal", "told"),
    [
        pytest.param(
            {"a": 4.0, "b": 1.0}, {"a": 95, "b": 5}, {"a": 4.75, "b": 1.0}, id="the share asked for, or what is there"
        ),
        pytest.param(
            {"a": 9.5, "b": 0.5}, {"a": 5, "b": 95}, {"a": 9.5, "b": 13.3}, id="a gainer is told before it gains"
        ),
        pytest.param({"a": 9.5, "b": None}, {"a": 5, "b": 95}, {"a": 9.5, "b": None}, id="no data is told to nobody"),
        pytest.param({"a": 0.0}, {"a": 100}, {"a": 0.0}, id="quiet is zero"),
    ],
)
def test_demand_that_an_hpa_is_told(measured, goal, told):
    assert demand(measured, goal, {"a": 95, "b": 5}) == pytest.approx(told)
