"""One more process serves connections when HTTP is the bottleneck, and none when anything else is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.decide.fronts import CALM, Action, Limits, Pressure, Seen, share, surplus

LIMITS = Limits(most=1)
BUSY = Seen(now=0.0, busy=(0.9,), connections=64, quick=True, room=True)
IDLE = Seen(now=0.0, busy=(0.1, 0.1), connections=2, quick=True, room=True)


def actions(seen: Seen, seconds: float, limits: Limits = LIMITS) -> list[tuple[float, Action]]:
    """What follows, and when, from the same sight four times a second."""
    pressure, found = CALM, []
    for look in range(int(seconds * 4) + 1):
        pressure, action = pressure.after(replace(seen, now=look / 4), limits)
        if action is not Action.NONE:
            found.append((look / 4, action))
            break
    return found


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param(BUSY, [(0.5, Action.START)], id="busy for half a second"),
        pytest.param(replace(BUSY, busy=(0.7,)), [], id="not quite busy"),
        pytest.param(replace(BUSY, connections=1), [], id="one connection can't be shared"),
        pytest.param(replace(BUSY, quick=False), [], id="the model is what takes the time"),
        pytest.param(replace(BUSY, quick=None), [], id="busy with something else than predictions"),
        pytest.param(replace(BUSY, room=False), [], id="no memory for another"),
        pytest.param(replace(BUSY, busy=(0.9, 0.9)), [], id="as many as there may be"),
        pytest.param(IDLE, [(60.0, Action.STOP)], id="one would do, for a minute"),
        pytest.param(replace(IDLE, busy=(0.1,)), [], id="the first one stays"),
        pytest.param(replace(IDLE, busy=(0.2, 0.2)), [], id="one would be half busy"),
        pytest.param(replace(BUSY, busy=(0.9, 0.9), quick=False), [(0.5, Action.STOP)], id="no longer a quick model"),
        pytest.param(replace(IDLE, quick=None), [(60.0, Action.STOP)], id="no predictions at all"),
    ],
)
def test_what_is_seen_decides(seen: Seen, expected: list[tuple[float, Action]]) -> None:
    assert actions(seen, 70) == expected


def test_all_have_to_be_busy_before_there_is_a_third() -> None:
    limits = replace(LIMITS, most=3)
    assert actions(replace(BUSY, busy=(0.9, 0.3)), 5, limits) == []
    assert actions(replace(BUSY, busy=(0.9, 0.8)), 5, limits) == [(0.5, Action.START)]


def test_a_pause_starts_the_clock_anew() -> None:
    pressure, _ = CALM.after(BUSY, LIMITS)
    pressure, _ = pressure.after(replace(BUSY, now=0.4, busy=(0.5,)), LIMITS)
    pressure, action = pressure.after(replace(BUSY, now=0.8), LIMITS)
    assert (pressure, action) == (Pressure(busy_since=0.8), Action.NONE)


@given(total=st.integers(0, 1000), parts=st.integers(1, 8))
def test_what_is_shared_out_is_all_there_is(total: int, parts: int) -> None:
    shares = [share(total, parts, index) for index in range(parts)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


@given(counts=st.lists(st.integers(0, 50), min_size=2, max_size=5))
def test_giving_ends_and_leaves_nobody_with_more_than_a_fair_share(counts: list[int]) -> None:
    for _ in range(100):
        before = list(counts)
        for index in range(len(counts)):
            rest = counts[:index] + counts[index + 1 :]
            for _ in range(surplus(counts[index], tuple(rest))):
                counts[index] -= 1
                counts[min((i for i in range(len(counts)) if i != index), key=counts.__getitem__)] += 1
        if counts == before:
            break
    assert counts == before
    assert max(counts) <= -(-sum(counts) // len(counts))
