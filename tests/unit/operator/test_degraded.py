"""A pod that is much slower than the others stands back while they have room, and comes back by itself."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inflight_operator.decide.degraded import (
    FIRST_SECONDS,
    LOOK_SECONDS,
    MOST_SECONDS,
    MOST_SHARE,
    Book,
    Degraded,
    away,
    decide,
)
from inflight_operator.xds.model import Pace

FAST = Pace(in_progress=0.5, sent=25, answered=25)  # 20 ms
SLOW = Pace(in_progress=2.0, sent=10, answered=10)  # 200 ms
STUCK = Pace(in_progress=4.0, sent=0, answered=0)
RARE = Pace(in_progress=0.2, sent=0.5, answered=0.5)  # 400 ms, of five requests
NOW = 1000.0


def paces(*each: Pace) -> dict[str, Pace]:
    """Pods a, b, c ..."""
    return dict(zip("abcdefghijkl", each, strict=False))


@pytest.mark.parametrize(
    ("seen", "pods", "slots", "expected"),
    [
        pytest.param(paces(FAST, FAST, FAST, FAST, SLOW), 5, 4, "e", id="one of five"),
        pytest.param(paces(FAST, FAST, SLOW), 3, 4, "c", id="one of three"),
        pytest.param(paces(FAST, FAST, FAST, STUCK), 4, 4, "d", id="one that answers nothing at all"),
        pytest.param(paces(FAST, SLOW), 2, 4, "", id="one of two: the other would be alone"),
        pytest.param(paces(FAST, FAST, FAST, FAST, SLOW, SLOW), 6, 4, "ef", id="two of six"),
        pytest.param(paces(FAST, FAST, FAST, SLOW, SLOW, STUCK), 6, 4, "f d", id="not more than a third: the slowest"),
        pytest.param(paces(FAST, FAST, FAST, FAST), 4, 4, "", id="all alike"),
        pytest.param(paces(FAST, FAST, FAST, Pace(1.0, 25, 25)), 4, 4, "", id="twice as slow is not slow"),
        pytest.param(paces(FAST, FAST, FAST, RARE), 4, 4, "", id="a few requests say nothing"),
        pytest.param(paces(SLOW, SLOW, SLOW), 3, 4, "", id="all slow: that is what the model takes"),
        pytest.param(paces(*[Pace(0.70, 25, 25)] * 4, SLOW), 5, 1, "", id="the others would be too full"),
        pytest.param(paces(*[Pace(0.65, 25, 25)] * 4, SLOW), 5, 1, "e", id="the others have room"),
        pytest.param(paces(SLOW), 4, 4, "", id="one that is asked alone"),
        pytest.param({}, 4, 4, "", id="nobody is asked"),
        pytest.param(None, 4, 4, "", id="unknown"),
    ],
)
def test_who_stands_back(seen: Mapping[str, Pace] | None, pods: int, slots: int, expected: str) -> None:
    found = away(decide({}, seen, pods=pods, slots=slots, now=NOW), NOW)
    assert found == set(expected.replace(" ", ""))


def history(seconds: int, slow_until: int) -> list[tuple[float, bool]]:
    """(time, whether the fifth pod stands back) each five seconds; it is slow as long as told, and asked only where it
    doesn't stand back."""
    book: Book = {}
    said = []
    for now in range(0, seconds, 5):
        asked = "e" not in away(book, now)
        fifth = [SLOW if now < slow_until else FAST] if asked else []
        book = decide(book, paces(FAST, FAST, FAST, FAST, *fifth), pods=5, slots=4, now=now)
        said.append((float(now), "e" in away(book, now)))
    return said


def spells(said: list[tuple[float, bool]]) -> list[tuple[float, float]]:
    """From when to when it stood back."""
    found: list[tuple[float, float]] = []
    for (_, before), (now, back) in zip([(0.0, False), *said], said, strict=False):
        if back and not before:
            found.append((now, now))
        elif back:
            found[-1] = (found[-1][0], now)
    return found


def test_it_stands_back_twice_as_long_each_time_and_is_looked_at_between() -> None:
    lasting = [end + 5 - begin for begin, end in spells(history(900, slow_until=900))]
    assert lasting[:5] == [FIRST_SECONDS * 2**n for n in range(5)]
    between = [
        b - (e + 5) for (_, e), (b, _) in zip(spells(history(900, 900)), spells(history(900, 900))[1:], strict=False)
    ]
    assert set(between) == {LOOK_SECONDS}


def test_it_never_stands_back_longer_than_the_most() -> None:
    lasting = [end + 5 - begin for begin, end in spells(history(3600, slow_until=3600))]
    assert max(lasting) == MOST_SECONDS


def test_one_that_has_recovered_stays_and_is_forgotten() -> None:
    assert len(spells(history(900, slow_until=15))) == 1
    book = {"e": Degraded(NOW, NOW + 20)}
    assert decide(book, paces(FAST, FAST), pods=5, slots=4, now=NOW + 49) == book
    assert decide(book, paces(FAST, FAST), pods=5, slots=4, now=NOW + 51) == {}


def test_it_is_not_judged_by_what_it_took_before() -> None:
    """The reports tell of ten seconds, which may be those in which it was slow."""
    book = {"e": Degraded(NOW, NOW + 20)}
    seen = paces(FAST, FAST, FAST, FAST, SLOW)
    assert decide(book, seen, pods=5, slots=4, now=NOW + 29) == book
    assert decide(book, seen, pods=5, slots=4, now=NOW + 30)["e"] == Degraded(NOW + 30, NOW + 70, 2)


def test_where_the_others_are_full_a_slow_pod_is_better_than_none() -> None:
    book = {"e": Degraded(NOW, NOW + 20)}
    full = paces(*[Pace(3.7, 25, 25)] * 4)
    assert decide(book, full, pods=5, slots=4, now=NOW + 5) == {}


def test_what_is_unknown_changes_nothing() -> None:
    book = {"e": Degraded(NOW, NOW + 20)}
    assert decide(book, None, pods=5, slots=4, now=NOW + 5) == book


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 100)), min_size=1, max_size=12), st.integers(1, 8))
def test_two_thirds_of_the_pods_are_always_asked(each: list[tuple[float, float]], slots: int) -> None:
    seen = paces(*[Pace(in_progress, answered, answered) for in_progress, answered in each])
    book: Book = {}
    for now in range(0, 100, 5):
        book = decide(book, seen, pods=len(seen), slots=slots, now=now)
        assert len(away(book, now)) <= len(seen) * MOST_SHARE + 1e-9


@pytest.mark.parametrize("in_progress", [0.025, 0.1, 0.2, 0.4])
def test_equal_pods_with_few_requests_are_not_called_slow_by_chance(in_progress: float) -> None:
    """A pod's pace is of 40 samples. Seen failing without a least number: by chance one has three times more."""
    chance = Random(20261127)  # noqa: S311 - the same samples every time
    for _ in range(300):
        seen = [sum(chance.random() < in_progress for _ in range(40)) / 40 for _ in range(5)]
        found = decide({}, paces(*[Pace(each, 5, 5) for each in seen]), pods=5, slots=4, now=NOW)
        assert away(found, NOW) <= {a for a, each in zip("abcde", seen, strict=True) if each >= 0.5}
        assert in_progress > 0.2 or not found
