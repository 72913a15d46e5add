"""Which worker ends when the container is nearly out of memory."""

from __future__ import annotations

import pytest

from model_server.decide.eviction import choose

MIB = 2**20


@pytest.mark.parametrize(
    ("room", "limit", "grown", "chosen"),
    [
        pytest.param(500, 2000, {"a": 900, "b": 100}, None, id="there is room"),
        pytest.param(99, 2000, {"a": 900, "b": 1000}, "b", id="less than a twentieth is left: who has taken the most"),
        pytest.param(31, 200, {"a": 60, "b": 1}, "a", id="or less than 32 MiB"),
        pytest.param(33, 200, {"a": 60, "b": 1}, None, id="a small container with just enough"),
        pytest.param(0, 2000, {"a": 99, "b": 10}, None, id="nobody has taken what is missing: it is too small"),
        pytest.param(0, 2000, {"a": -5}, None, id="one has shrunk"),
        pytest.param(0, 2000, {}, None, id="there are no workers"),
    ],
)
def test_who_is_ended(room: int, limit: int, grown: dict[str, int], chosen: str | None) -> None:
    assert choose(room * MIB, limit * MIB, {worker: taken * MIB for worker, taken in grown.items()}) == chosen
