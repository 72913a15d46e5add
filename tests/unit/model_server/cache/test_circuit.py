"""After three failures in a row nobody asks for a second, then one tries; each failure more doubles the pause."""

from __future__ import annotations

from model_server.cache.circuit import Circuit


def failed(times: int, now: float = 0) -> Circuit:
    """After `times` failures, all at one time; trials from the fourth on."""
    circuit = Circuit()
    for _ in range(times):
        circuit = circuit.asking(now).failed(now)
    return circuit


def test_two_failures_change_nothing() -> None:
    assert failed(2).allows(0)
    assert not failed(2).broken


def test_the_third_makes_a_pause_of_a_second() -> None:
    assert not failed(3).allows(0.99)
    assert failed(3).allows(1.0)


def test_the_pause_doubles_up_to_half_a_minute() -> None:
    pauses = [failed(times).open_until for times in (3, 4, 5, 6, 7, 8, 9, 5000)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_hundred_that_fail_at_one_time_are_one_failure() -> None:
    circuit = failed(3)
    for _ in range(100):
        circuit = circuit.failed(0.5)
    assert circuit == failed(3)


def test_while_one_tries_nobody_else_does() -> None:
    trying = failed(3).asking(1.0)
    assert not trying.allows(1.0)
    assert trying.allows(2.0), "unless nothing is heard of it"


def test_as_long_as_it_works_everybody_asks() -> None:
    assert Circuit().asking(1.0).asking(1.0).allows(1.0)
