"""May a request enter, and when should a refused one come back?"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.decide.admission import Load, Refusal, decide, expected_wait, retry_after
from model_server.decide.service_time import ServiceTime


def load(**given: Any) -> Load:
    """One slot that will be free in a second, nobody waiting, ten may."""
    base = {
        "remaining": [1.0],
        "waiting": 0,
        "max_queue": 10,
        "ahead": 0,
        "rows_ahead": 0,
        "max_rows": 1,
        "longest_wait": math.inf,
    }
    return Load(**{**base, **given})


def queued(count: int, rows: int | None = None, **given: Any) -> Load:
    """`count` requests wait, with `rows` rows altogether."""
    return load(waiting=count, ahead=count, rows_ahead=rows or count, **given)


def exactly(base: float = 1.0, per_row: float = 0.0) -> ServiceTime:
    """A model whose predictions always take base + per_row · rows."""
    service = ServiceTime()
    for rows in (1, 64) * 10:
        service.observe(rows, base + per_row * rows)
    return service


@pytest.mark.parametrize(
    ("found", "service", "wait"),
    [
        pytest.param(load(), exactly(), 1, id="behind the one that runs"),
        pytest.param(load(remaining=[0.2]), exactly(), 0.2, id="which may be nearly done"),
        pytest.param(queued(3), exactly(), 4, id="behind three more"),
        pytest.param(queued(3, remaining=[1.0, 0.5]), exactly(), 2, id="two slots take turns"),
        pytest.param(queued(2, remaining=[1.0, 0.5]), exactly(), 1.5, id="the slot that is free first comes first"),
        pytest.param(queued(3, rows=30), exactly(0, 0.1), 4, id="larger requests take longer"),
        pytest.param(queued(30, max_rows=64), exactly(), 1, id="all that wait are one batch, and it is in it"),
        pytest.param(queued(70, max_rows=64), exactly(), 2, id="one batch is full already"),
        pytest.param(load(), ServiceTime(), 1, id="nothing measured"),
    ],
)
def test_the_wait_is_foreseen(found: Load, service: ServiceTime, wait: float) -> None:
    assert expected_wait(found, 1, service)[0] == pytest.approx(wait)


@pytest.mark.parametrize(
    ("found", "seconds_left", "refusal"),
    [
        pytest.param(queued(3), 60, None, id="there is room and time"),
        pytest.param(queued(10), 60, Refusal.QUEUE_FULL, id="no room"),
        pytest.param(queued(3), 4.5, Refusal.TOO_LATE, id="its answer would come after five seconds"),
        pytest.param(queued(3), 5.1, None, id="just in time"),
        pytest.param(queued(3, longest_wait=3.0), 60, Refusal.STANDING, id="the queue has to dissolve"),
        pytest.param(queued(1, longest_wait=3.0), 60, None, id="as far as it has dissolved"),
        pytest.param(load(max_queue=0, waiting=0), 60, Refusal.QUEUE_FULL, id="no queue at all"),
    ],
)
def test_the_decision(found: Load, seconds_left: float, refusal: Refusal | None) -> None:
    refused = decide(found, 1, seconds_left, exactly())
    assert (refused.why if refused else None) == refusal


@pytest.mark.parametrize(
    ("found", "service", "seconds"),
    [
        pytest.param(queued(8, remaining=[0.1, 0.1]), exactly(0.1), 0.5, id="all ahead of it have run"),
        pytest.param(load(remaining=[0.4]), exactly(), 0.4, id="nobody waits"),
        pytest.param(queued(64, remaining=[0.0], max_rows=32), exactly(0.1), 0.2, id="in batches it is sooner"),
        pytest.param(queued(100), exactly(1.0), 101, id="however long that takes"),
        pytest.param(queued(2), ServiceTime(), 3, id="a second each before anything was measured"),
    ],
)
def test_the_first_refused_comes_back_when_the_queue_has_drained(
    found: Load, service: ServiceTime, seconds: float
) -> None:
    assert retry_after(found, 0, service) == pytest.approx(seconds)


@pytest.mark.parametrize(("promises", "seconds"), [(0, 0.5), (1, 0.55), (2, 0.6), (100, 5.5), (1000, 10)])
def test_those_refused_come_back_one_service_apart_within_ten_seconds(promises: int, seconds: float) -> None:
    found = queued(8, remaining=[0.1, 0.1])
    assert retry_after(found, promises, exactly(0.1)) == pytest.approx(seconds)


@given(
    count=st.integers(0, 1000),
    rows=st.integers(1, 100),
    slots=st.integers(1, 64),
    max_rows=st.integers(1, 512),
    service=st.builds(exactly, st.floats(1e-6, 60), st.floats(0, 1)),
)
def test_more_ahead_never_means_a_shorter_wait(
    count: int, rows: int, slots: int, max_rows: int, service: ServiceTime
) -> None:
    shorter = queued(count, count * rows, remaining=[0.0] * slots, max_rows=max_rows)
    longer = queued(count + slots, (count + slots) * rows, remaining=[0.0] * slots, max_rows=max_rows)
    one, other = expected_wait(shorter, 1, service), expected_wait(longer, 1, service)
    assert 0 <= one[0] <= other[0] + 1e-6
    assert 0 <= retry_after(longer, 0, service) <= retry_after(longer, 5, service)
