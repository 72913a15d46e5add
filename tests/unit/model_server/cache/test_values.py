"""Values of the shared level: back and forth they are the same, and nothing foreign is believed."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.cache import values
from model_server.cache.values import ForeignValueError
from model_server.models.tensors import DATATYPES, datatype_of

KEY = b"k" * 32


def signed(heads: Any, *parts: bytes, key: bytes = KEY, mark: bytes = b"inflight\x01") -> bytes:
    """A value as somebody would make it who knows the format."""
    head = orjson.dumps(heads)
    body = struct.pack("<I", len(head)) + head + b"".join(parts)
    return mark + hashlib.blake2b(body, digest_size=16, key=key).digest() + body


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_comes_back(datatype: str) -> None:
    made = np.array([b"", b"\xff\x00", b"text"] if datatype == "BYTES" else [0, 1, 1], DATATYPES[datatype])
    value = values.encode(KEY, {"y": made.reshape(3, 1), "n": np.float64(2) * np.ones(())})
    assert value is not None
    back = values.decode(KEY, value).outputs
    assert list(back) == ["y", "n"]
    assert (back["y"].dtype, back["y"].shape, back["y"].tolist()) == (made.dtype, (3, 1), made.reshape(3, 1).tolist())
    assert back["n"].tolist() == 2.0


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.array(["ü", "b"]), id="numpy's texts"),
        pytest.param(np.array([b"\xc3\xbc", b"b"]), id="numpy's bytes"),
        pytest.param(np.array(["ü", b"b"], object), id="texts and bytes"),
    ],
)
def test_every_kind_of_text_comes_back_as_bytes(array: Any) -> None:
    value = values.encode(KEY, {"y": array})
    assert value is not None
    back = values.decode(KEY, value).outputs["y"]
    assert (datatype_of(back), back.tolist()) == ("BYTES", ["ü".encode(), b"b"])


def test_large_answers_are_not_shared() -> None:
    assert values.encode(KEY, {"y": np.zeros(values.MAX_BYTES, np.uint8)}) is None


def test_what_cannot_be_carried_is_not_shared() -> None:
    assert values.encode(KEY, {"y": np.array(["\ud800"], object)}) is None


GOOD = signed([["y", "FP32", [2], 8]], struct.pack("<2f", 1, 2))


def test_the_format_is_what_it_says() -> None:
    assert values.encode(KEY, {"y": np.array([1, 2], np.float32)}) == GOOD


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"inflight\x01", id="the mark alone"),
        pytest.param(GOOD[:-1], id="cut off"),
        pytest.param(GOOD + b"\0", id="with something behind it"),
        pytest.param(GOOD[:-1] + bytes([GOOD[-1] ^ 1]), id="one bit wrong"),
        pytest.param(signed([["y", "FP32", [2], 8]], bytes(8), key=b"o" * 32), id="another request's answer"),
        pytest.param(signed([["y", "FP32", [2], 8]], bytes(8), mark=b"inflight\x02"), id="another version"),
        pytest.param(b"\x80\x04\x95" + b"." * 40, id="a pickle"),
        pytest.param(signed([["y", "FP32", [2], 8]], bytes(9)), id="more bytes than the head says"),
        pytest.param(signed([["y", "FP32", [2], 8]], bytes(7)), id="fewer bytes than the head says"),
        pytest.param(signed([["y", "FP32", [2**40], 8]], bytes(8)), id="a shape larger than the data"),
        pytest.param(signed([["y", "FP32", [2**64 - 1], 8]], bytes(8)), id="a size that is no C integer"),
        pytest.param(signed([["y", "BYTES", [2**64 - 1], 8]], bytes(8)), id="texts without number"),
        pytest.param(signed([[{"y": 1}, "FP32", [2], 8]], bytes(8)), id="a name that is no text"),
        pytest.param(signed([["y", ["FP32"], [2], 8]], bytes(8)), id="a datatype that is no text"),
        pytest.param(signed([["y", "FP32", [-1], 8]], bytes(8)), id="a size to be guessed"),
        pytest.param(signed([["y", "FP32", [2.0], 8]], bytes(8)), id="a size that is no integer"),
        pytest.param(signed([["y", "FP32", [1] * 100, 4]], bytes(4)), id="a hundred dimensions"),
        pytest.param(signed([["y", "O", [2], 16]], bytes(16)), id="a datatype there is not"),
        pytest.param(signed([["y", "BYTES", [2], 17]], struct.pack("<2Q", 1, 1) + b"a"), id="texts too short"),
        pytest.param(signed([["y", "BYTES", [1], 8]], struct.pack("<Q", 2**63)), id="a text of 8 EiB"),
        pytest.param(signed([["y", "BYTES", [2**61], 8]], bytes(8)), id="more texts than there are"),
        pytest.param(signed([["y", "BYTES", [2], 20]], struct.pack("<2Q", 2**64 - 1, 5) + b"abcd"), id="wrapping"),
        pytest.param(signed([["y", "FP32", [1], 4]] * 2, bytes(8)), id="a name twice"),
        pytest.param(signed([["y", "FP32", [2], -8]], bytes(8)), id="a negative size"),
        pytest.param(signed([["y", "FP32"]], bytes(8)), id="half a head"),
        pytest.param(signed({"y": 1}, bytes(8)), id="another head"),
        pytest.param(signed(7, bytes(8)), id="a number for a head"),
    ],
)
def test_nothing_foreign_is_believed(value: bytes) -> None:
    with pytest.raises(ForeignValueError):
        values.decode(KEY, value)


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_raise_anything_else(body: bytes, with_check: bool) -> None:
    check = hashlib.blake2b(body, digest_size=16, key=KEY).digest() if with_check else b""
    with pytest.raises(ForeignValueError):
        values.decode(KEY, b"inflight\x01" + check + body)
