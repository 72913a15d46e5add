"""How many refused clients are still to come back."""

from __future__ import annotations

from model_server.promises import Promises


def test_a_promise_counts_until_its_time() -> None:
    promises = Promises()
    for at in (3.0, 1.0, 2.0):
        promises.add(at)
    assert [promises.pending(now) for now in (0.0, 1.0, 2.5, 3.0)] == [3, 2, 1, 0]


def test_clients_that_never_come_back_hold_nobody_up_for_long() -> None:
    """Told once each second for an hour: no more than the last ones count."""
    promises = Promises()
    for second in range(3600):
        promises.pending(second)
        promises.add(second + 5.0)
    assert promises.pending(3600) == 4


def test_memory_is_bounded() -> None:
    promises = Promises()
    for number in range(50_000):
        promises.add(1e9 + number)
    assert promises.pending(0.0) == 10_000
