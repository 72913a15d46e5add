"""Raw tensors, as they travel in binary bodies and in gRPC messages."""

from __future__ import annotations

import numpy as np
import pytest

from model_server.errors import Code, Problem
from model_server.models.tensors import DATATYPES, Array
from model_server.rest import raw as tensors
from tensor_samples import sample


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_travels_raw(datatype: str) -> None:
    array = sample(datatype)
    raw = memoryview(bytes(tensors.to_raw(array)))
    back = tensors.from_raw(raw, datatype, [3, 1], "x")
    assert (back.dtype, back.shape, back.tolist()) == (array.dtype, array.shape, array.tolist())
    assert back.flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.arange(6, dtype=">f4").reshape(2, 3), id="big-endian"),
        pytest.param(np.arange(6, dtype=np.float32).reshape(3, 2).T, id="not contiguous"),
        pytest.param(np.array(7.0, np.float32), id="no dimension"),
        pytest.param(np.empty((0, 2), np.float32), id="no rows"),
    ],
)
def test_any_layout_is_answered_row_by_row(array: Array) -> None:
    assert np.frombuffer(bytes(tensors.to_raw(array)), "<f4").tolist() == array.reshape(-1).tolist()


def test_text_that_a_model_answers_is_bytes() -> None:
    raw = memoryview(bytes(tensors.to_raw(np.array(["a", "bc"]))))
    assert tensors.from_raw(raw, "BYTES", [2], "x").tolist() == [b"a", b"bc"]


HUGE = [2**40, 2**40]


@pytest.mark.parametrize(
    ("raw", "datatype", "shape", "says"),
    [
        pytest.param(b"\0" * 8, "FP32", [3], "needs 12 bytes, not 8", id="too few bytes"),
        pytest.param(b"\0" * 8, "FP32", HUGE, "bytes, not 8", id="a huge shape"),
        pytest.param(b"\1\0\0\0", "BYTES", [1], "end within element 0", id="text cut"),
        pytest.param(b"\1\0", "BYTES", [1], "end within element 0", id="length cut"),
        pytest.param(b"\xff\xff\xff\xff", "BYTES", HUGE, "end within element 0", id="a huge length"),
        pytest.param(b"\0" * 4, "BYTES", HUGE, "the bytes have 1", id="too few texts"),
        pytest.param(b"\0\2", "BOOL", [2], "a byte of 0 or 1", id="no BOOL"),
        pytest.param(b"\0" * 400, "BYTES", [2], "the bytes have more", id="too many texts"),
    ],
)
def test_bytes_that_do_not_fit_their_shape_are_refused(raw: bytes, datatype: str, shape: list[int], says: str) -> None:
    with pytest.raises(Problem) as refused:
        tensors.from_raw(memoryview(raw), datatype, shape, "inputs[0]")
    assert refused.value.code is Code.BAD_INPUT
    assert says in refused.value.detail
