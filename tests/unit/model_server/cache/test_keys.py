"""Keys are equal for equal requests to one model, and for nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.cache.keys import Keys
from model_server.models.tensors import DATATYPES, Tensors

KEYS = Keys("ab" * 32, "digits")


def array(values: Any, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.array(values, dtype)


def text(*items: bytes) -> np.ndarray[Any, Any]:
    return array(items, object)


ROWS = [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param({"x": array(ROWS)}, {"x": array([[1, 2], [3, 5]])}, id="another number"),
        pytest.param({"x": array(ROWS)}, {"y": array(ROWS)}, id="another name"),
        pytest.param({"x": array(ROWS)}, {"x": array([1, 2, 3, 4])}, id="another shape of the same bytes"),
        pytest.param({"x": array([0])}, {"x": array([0], np.int32)}, id="another type of the same bytes"),
        pytest.param({"x": array([0])}, {"x": array([-0.0])}, id="minus zero"),
        pytest.param({"x": array([1])}, {"x": array([1], ">f4").byteswap()}, id="another order of the same bytes"),
        pytest.param({"x": array([1])}, {"x": array([1]), "y": array([])}, id="one more, empty"),
        pytest.param({"x": text(b"ab", b"c")}, {"x": text(b"a", b"bc")}, id="texts cut elsewhere"),
        pytest.param({"x": text(b"", b"a")}, {"x": text(b"a", b"")}, id="an empty text elsewhere"),
        pytest.param({"x": text(b"a")}, {"x": array([b"a"], "S1")}, id="bytes in another form"),
        pytest.param(
            {"x": array([1]), "y": array([2])}, {"y": array([2]), "x": array([1])}, id="another order of the inputs"
        ),
        pytest.param(
            {"x": array([1, 2]), "y": array([3])}, {"x": array([1]), "y": array([2, 3])}, id="a number in another input"
        ),
        pytest.param({"x', '<f4', (1,))": array([])}, {"x": array([])}, id="a name that looks like more than a name"),
    ],
)
def test_other_inputs_have_another_key(one: Tensors, other: Tensors) -> None:
    assert KEYS.key(one) != KEYS.key(other)


@pytest.mark.parametrize(
    "identity",
    [
        pytest.param(("cd" * 32, "digits"), id="another artifact under the same name"),
        pytest.param(("ab" * 32, "letters"), id="the same artifact under another name"),
        pytest.param(("ab" * 32 + "digits",), id="the same letters, divided otherwise"),
        pytest.param(("ab" * 32, "digits", ""), id="one more word, empty"),
    ],
)
def test_another_model_has_other_keys(identity: tuple[str, ...]) -> None:
    inputs = {"x": array(ROWS)}
    assert Keys(*identity).key(inputs) != KEYS.key(inputs)


def test_how_an_array_lies_in_memory_does_not_count() -> None:
    transposed = array([[1, 3], [2, 4]]).T
    assert not transposed.flags.c_contiguous
    assert KEYS.key({"x": transposed}) == KEYS.key({"x": array(ROWS)})


def test_inputs_that_are_neither_numbers_nor_bytes_have_no_key() -> None:
    assert KEYS.key({"x": array([object()], object)}) is None


def test_a_key_has_256_bits_and_is_the_same_in_every_process() -> None:
    key = KEYS.key({"x": array(ROWS), "names": text(b"a", b"")})
    assert key is not None
    assert key.hex() == "0ee85bace77dade166df33c0372a2f568457e495c020e6f0d956318592995fd3"


DTYPES = [dtype for name, dtype in DATATYPES.items() if name != "BYTES"]


@st.composite
def tensors(draw: st.DrawFn) -> Tensors:
    made: dict[str, np.ndarray[Any, Any]] = {}
    for name in draw(st.lists(st.sampled_from("xyz"), unique=True, max_size=3)):
        shape = tuple(draw(st.lists(st.integers(0, 2), max_size=2)))
        count = int(np.prod(shape))
        if draw(st.booleans()):
            items = draw(st.lists(st.sampled_from([b"", b"a", b"aa"]), min_size=count, max_size=count))
            made[name] = np.empty(count, object)
            made[name][:] = items
        else:
            made[name] = np.array(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)))
            made[name] = made[name].astype(draw(st.sampled_from(DTYPES)))
        made[name] = made[name].reshape(shape)
    return made


def same(one: Tensors, other: Tensors) -> bool:
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].tolist() == other[name].tolist()
        for name in one
    )


@given(tensors(), tensors())
def test_keys_are_equal_exactly_when_inputs_are(one: Tensors, other: Tensors) -> None:
    assert (KEYS.key(one) == KEYS.key(other)) == same(one, other)
