"""Tensors as bytes and back; whatever else comes instead is noticed, and never anything but a WireError."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.models.tensors import DATATYPES, Array
from model_server.workers import wire
from model_server.workers.wire import UnsendableError, WireError

SHAPES = st.lists(st.integers(0, 4), max_size=4)
NUMERIC = sorted(set(DATATYPES) - {"BYTES"})


@st.composite
def numbers(draw: st.DrawFn) -> Array:
    """An array of any numeric type, shape and bit pattern."""
    shape = draw(SHAPES)
    dtype = DATATYPES[draw(st.sampled_from(NUMERIC))]
    size = int(np.prod(shape)) * dtype.itemsize
    data = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), np.uint8)
    return (data & 1 if dtype.kind == "b" else data).view(dtype).reshape(shape)


@st.composite
def texts(draw: st.DrawFn) -> Array:
    """An array of bytes."""
    shape = draw(SHAPES)
    array = np.empty(int(np.prod(shape)), object)
    array[:] = draw(st.lists(st.binary(max_size=9), min_size=array.size, max_size=array.size))
    return array.reshape(shape)


def carried(tensors: dict[str, Array]) -> dict[str, Array]:
    """What arrives of `tensors`."""
    message: dict[str, Any] = {}
    message["tensors"], parts, size = wire.described(tensors)
    parsed = wire.parsed(wire.header(message))
    return wire.tensors(parsed["tensors"], memoryview(bytes(wire.placed(parts, size))))


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), numbers() | texts(), max_size=4))
def test_whatever_is_sent_arrives_bit_by_bit(tensors: dict[str, Array]) -> None:
    arrived = carried(tensors)
    assert list(arrived) == list(tensors)
    for name, sent in tensors.items():
        got = arrived[name]
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
        same = got.tolist() == sent.tolist() if sent.dtype.kind == "O" else got.tobytes() == sent.tobytes()
        assert same


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        pytest.param(np.array(["ä", ""]), ["ä".encode(), b""], id="text is UTF-8"),
        pytest.param(np.array([b"a", b"bc"]), [b"a", b"bc"], id="bytes of a fixed length"),
        pytest.param(np.array(["a", b"b", 3], object), [b"a", b"b", b"3"], id="objects are what they print"),
    ],
)
def test_texts_of_any_kind_arrive_as_bytes(sent: Array, arrives: list[bytes]) -> None:
    assert carried({"x": sent})["x"].tolist() == arrives


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.ones(2, complex), id="complex"),
        pytest.param(np.array(["2020-01-01"], "datetime64[D]"), id="dates"),
        pytest.param(np.array(["\udc80"], object), id="no Unicode"),
    ],
)
def test_what_cannot_be_sent_is_refused(array: Array) -> None:
    with pytest.raises(UnsendableError):
        wire.described({"x": array})


def test_a_name_that_is_no_unicode_cannot_be_sent() -> None:
    with pytest.raises(UnsendableError):
        wire.header({"tensors": ["\udc80"]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)
SIZES = st.integers(-2, 12) | st.sampled_from([2**31, 2**63, 2**64, 2**70]) | JSON
ENTRIES = st.tuples(
    st.text(max_size=2) | JSON,
    st.sampled_from(sorted(DATATYPES)) | JSON,
    st.lists(SIZES, max_size=4) | JSON,
    SIZES,
    SIZES,
).map(list)


@given(st.lists(ENTRIES, max_size=3) | JSON, st.binary(max_size=24))
def test_a_forged_description_is_taken_for_what_is_there_or_refused(told: Any, memory: bytes) -> None:
    try:
        arrived = wire.tensors(told, memoryview(memory))
    except WireError:
        return
    assert sum(array.nbytes for array in arrived.values() if array.dtype.kind != "O") <= len(memory)


@given(st.binary(max_size=64))
def test_bytes_that_are_no_header_are_refused(data: bytes) -> None:
    try:
        assert isinstance(wire.parsed(data), dict)
    except WireError:
        return


def test_what_arrives_is_a_copy() -> None:
    memory = bytearray(b"1234")
    (array,) = wire.tensors([["x", "INT32", [1], 0, 4]], memoryview(memory)).values()
    memory[:] = b"0000"
    assert array.tobytes() == b"1234"
    assert array.flags.writeable
