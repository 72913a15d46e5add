"""Answers in memory: bounded in bytes, forgotten in time, and nobody else's."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest

from model_server.cache import store
from model_server.cache.store import Kept, Store
from model_server.instruments import Counter


class Bench:
    """A Store of answers of one tensor."""

    def __init__(self, max_bytes: int = 1_000_000) -> None:
        self.evictions = Counter()
        self.store = Store(max_bytes, self.evictions)

    def put(self, key: bytes, value: float, now: float = 0, ttl: float = 10, floats: int = 1) -> Kept:
        kept = store.own({"y": np.full(floats, value, np.float32)})
        assert kept is not None
        self.store.put(key, kept, now, now + ttl, now)
        return kept

    def get(self, key: bytes, now: float = 0, max_age: float = math.inf) -> float | None:
        found = self.store.get(key, now, max_age)
        return None if found is None else float(found["y"][0])


def test_what_was_put_is_found_under_its_key_only() -> None:
    bench = Bench()
    bench.put(b"a", 1)
    assert (bench.get(b"a"), bench.get(b"b")) == (1, None)


def test_nothing_is_found_after_its_time() -> None:
    bench = Bench()
    bench.put(b"a", 1, now=5, ttl=10)
    assert bench.get(b"a", now=14.999) == 1
    assert bench.get(b"a", now=15) is None
    assert (len(bench.store), bench.store.bytes, bench.evictions.value) == (0, 0, 0)


def test_being_asked_for_does_not_keep_an_answer_longer() -> None:
    bench = Bench()
    bench.put(b"a", 1, ttl=10)
    for now in (4, 8, 9.9):
        bench.get(b"a", now)
    assert bench.get(b"a", 10) is None


def test_who_wants_no_old_answer_gets_none_but_others_do() -> None:
    bench = Bench()
    bench.put(b"a", 1, now=0)
    assert bench.get(b"a", now=3, max_age=2) is None
    assert bench.get(b"a", now=3, max_age=3) == 1


def test_the_least_recently_used_goes_when_there_is_no_room() -> None:
    size = Bench().put(b"?", 0).size
    bench = Bench(3 * size)
    for value, key in enumerate((b"a", b"b", b"c")):
        bench.put(key, value)
    bench.get(b"a")
    bench.put(b"d", 3)
    assert [bench.get(key) for key in (b"a", b"b", b"c", b"d")] == [0, None, 2, 3]
    assert (bench.store.bytes, bench.evictions.value) == (3 * size, 1)


def test_what_had_no_time_left_is_not_counted_as_driven_out() -> None:
    size = Bench().put(b"?", 0).size
    bench = Bench(size)
    bench.put(b"a", 1, ttl=1)
    bench.put(b"b", 2, now=1)
    assert bench.evictions.value == 0


def test_a_large_answer_drives_out_several_small_ones() -> None:
    bench = Bench(4000)
    for key in (b"a", b"b", b"c"):
        bench.put(key, 1)
    bench.put(b"large", 2, floats=500)
    assert bench.store.bytes <= 4000
    assert bench.get(b"large") == 2


def test_an_answer_larger_than_all_memory_is_not_kept_and_drives_nobody_out() -> None:
    bench = Bench(4000)
    bench.put(b"a", 1)
    bench.put(b"large", 2, floats=1000)
    assert (bench.get(b"a"), bench.get(b"large"), bench.evictions.value) == (1, None, 0)


def test_a_newer_answer_takes_the_place_of_the_older() -> None:
    bench = Bench()
    bench.put(b"a", 1, floats=1000)
    kept = bench.put(b"a", 2)
    assert bench.get(b"a") == 2
    assert (len(bench.store), bench.store.bytes) == (1, kept.size)


def test_what_is_kept_cannot_be_changed_by_whoever_made_it() -> None:
    made = np.zeros(3, np.float32)
    kept = store.own({"y": made})
    made[0] = 7
    assert kept is not None
    assert kept.outputs["y"].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="read-only"):
        kept.outputs["y"][0] = 7


def test_a_row_of_a_large_batch_does_not_hold_on_to_the_batch() -> None:
    kept = store.own({"y": np.zeros((1000, 1000), np.float32)[:1]})
    assert kept is not None
    assert kept.outputs["y"].base is None
    assert 4000 < kept.size < 6000


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.array([1j]), id="complex numbers"),
        pytest.param(np.array(["2026-01-01"], "datetime64[D]"), id="dates"),
        pytest.param(np.array([{}], object), id="any objects"),
        pytest.param(np.array([[1], None], object), id="objects that could change"),
    ],
)
def test_what_no_answer_can_carry_is_not_kept(array: Any) -> None:
    assert store.own({"y": array}) is None


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda number: np.full(1, number, np.float32), id="small"),
        pytest.param(lambda number: np.full(2000, number, np.float64), id="large"),
        pytest.param(lambda number: np.array([b"%d" % number * 20] * 10, object), id="texts"),
    ],
)
def test_bytes_counted_are_bytes_used(make: Any) -> None:
    answers = Store(10**9, Counter())
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(200):
            kept = store.own({"y": make(number)})
            assert kept is not None
            answers.put(b"%032d" % number, kept, 0.0, 10.0, 0.0)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used <= answers.bytes <= 2.5 * used + 200 * 300
