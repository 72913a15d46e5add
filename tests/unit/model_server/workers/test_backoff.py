"""How long to wait before a lost worker is replaced."""

from __future__ import annotations

import pytest

from model_server.workers.backoff import LONGEST_SECONDS, Backoff


def pauses(count: int, *, busy: bool, lived: float = 0.0) -> list[float]:
    backoff = Backoff()
    return [backoff.lost(lived, busy=busy) for _ in range(count)]


def test_those_that_die_without_a_request_are_waited_for_longer_and_longer() -> None:
    assert pauses(6, busy=False) == pytest.approx([0, 0, 0.1, 0.2, 0.4, 0.8])


def test_those_that_die_of_a_request_are_replaced_at_once_for_as_long_as_a_batch_is_halved() -> None:
    assert pauses(18, busy=True) == pytest.approx([0] * 16 + [0.1, 0.2])


def test_no_pause_is_longer_than_the_longest() -> None:
    assert pauses(5000, busy=False)[-1] == LONGEST_SECONDS


def test_one_that_lived_long_starts_anew() -> None:
    assert set(pauses(50, busy=False, lived=60)) == {0.0}


def test_an_answer_makes_all_well() -> None:
    backoff = Backoff()
    for _ in range(10):
        backoff.lost(0, busy=False)
    backoff.worked()
    assert backoff.lost(0, busy=False) == 0
