"""Raw tensors behind a request's JSON and behind an answer's (the binary tensor data extension)."""

from __future__ import annotations

import tracemalloc
from typing import Any
from unittest.mock import Mock

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model_server.errors import Code, Problem
from model_server.lifecycle import Served
from model_server.models.base import Metadata
from model_server.models.tensors import DATATYPES, datatype_of
from model_server.rest import v2
from model_server.rest.raw import from_raw
from model_server.rest.wire import ALIGNMENT
from model_serving import DIGEST, VERSION, FakeModel, request, spec, tensor

ROWS = FakeModel().metadata  # x: FP32 [-1, 2] → y: FP32 [-1, 2]
UNTOLD = Metadata("python")
SERVED = Served(ROWS, Mock(), DIGEST, VERSION)
ROW = np.array([[1, 2]], np.float32).tobytes()


def raw_tensor(size: Any, shape: Any, datatype: str = "FP32", name: str = "x", **parameters: Any) -> dict[str, Any]:
    """A V2 request tensor of `size` raw bytes."""
    told = tensor(None, shape, datatype, name) | {"parameters": {"binary_data_size": size, **parameters}}
    del told["data"]
    return told


def asked(head: Any, *tails: bytes, metadata: Metadata = UNTOLD) -> v2.Request:
    json = orjson.dumps(head)
    return v2.decode(b"".join([json, *tails]), metadata, len(json))


def answered(outputs: dict[str, Any], wanted: v2.Request) -> tuple[dict[str, Any], list[bytes]]:
    """(the answer's JSON, the raw bytes of its tensors)."""
    answer = v2.encode(wanted, outputs, "digits", SERVED)
    return orjson.loads(answer.body), [bytes(part) for part in answer.tail]


def numbers(datatype: str) -> st.SearchStrategy[Any]:
    return arrays.arrays(DATATYPES[datatype], arrays.array_shapes(min_dims=0, max_dims=4, max_side=4))


def texts(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return arrays.arrays(object, arrays.array_shapes(min_dims=0, max_dims=3, max_side=3), elements=items)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[Any, bool]:
    """(an array of any datatype and shape that the way can carry, whether it goes raw)."""
    raw = draw(st.booleans())
    datatype = draw(st.sampled_from(list(DATATYPES)))
    if datatype == "BYTES":
        return draw(texts(st.binary(max_size=9) if raw else st.text(max_size=9).map(str.encode))), raw
    array = draw(numbers(datatype))
    return (array if raw or array.dtype.kind != "f" else np.nan_to_num(array, posinf=1, neginf=-1)), raw


@given(tensors())
@settings(max_examples=300, deadline=None)
@example((np.array([np.nan, -np.inf], np.float16), True))
def test_what_is_answered_is_the_same_tensor_when_it_is_asked(sent: tuple[Any, bool]) -> None:
    array, raw = sent
    told, tail = answered({"x": np.array(array, order="F")}, v2.Request({}, raw=raw))
    again = asked(request(*told["outputs"]), *tail).inputs["x"]
    assert (again.dtype, again.shape, again.tobytes()) == (array.dtype, array.shape, array.tobytes()) or (
        again.dtype == object and again.shape == array.shape and again.tolist() == array.tolist()
    )


def test_raw_and_json_tensors_go_together_each_with_its_own_bytes() -> None:
    found = asked(
        request(
            raw_tensor(16, [2, 2], "UINT32", "a"),
            tensor([1.5], [1], "FP64", "b"),
            raw_tensor(3, [3], "BOOL", "c"),
        ),
        np.array([1, 2, 3, 4], "<u4").tobytes(),
        b"\x01\x00\x01",
    ).inputs
    assert found["a"].tolist() == [[1, 2], [3, 4]]
    assert found["b"].tolist() == [1.5]
    assert found["c"].tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("head", "tail", "says"),
    [
        pytest.param(request(raw_tensor(8, [1, 2])), b"", "binary_data_size is 8, but 0 bytes are left", id="no bytes"),
        pytest.param(request(raw_tensor(8, [1, 2])), ROW[:-1], "but 7 bytes are left", id="a byte too few"),
        pytest.param(request(raw_tensor(8, [1, 2])), ROW + b"!", "1 bytes more than", id="a byte too many"),
        pytest.param(request(), ROW, "8 bytes more than", id="bytes that no tensor told of"),
        pytest.param(request(raw_tensor(4, [1, 2])), ROW[:4], "of FP32 needs 8 bytes, not 4", id="less than the shape"),
        pytest.param(
            request(raw_tensor(2**62, [2**31, 2**31])), ROW, "but 8 bytes are left", id="2^62 bytes of 8 declared"
        ),
        pytest.param(
            request(raw_tensor(8, [2**62, 2**62, 2**62])), ROW, "bytes, not 8", id="a shape beyond all integers"
        ),
        pytest.param(request(raw_tensor(-8, [1, 2])), ROW, "must be a number of bytes", id="a negative size"),
        pytest.param(request(raw_tensor(True, [1, 2])), ROW, "must be a number of bytes", id="true for a size"),
        pytest.param(request(raw_tensor("8", [1, 2])), ROW, "must be a number of bytes", id="a string for a size"),
        pytest.param(request(raw_tensor(8.0, [1, 2])), ROW, "must be a number of bytes", id="a size with a point"),
        pytest.param(
            request(raw_tensor(8, [1, 2]) | {"data": [1, 2]}), ROW, "data must not be given", id="data as well"
        ),
        pytest.param(request(raw_tensor(8, [-1, 2])), ROW, "at least 1", id="a negative dimension"),
        pytest.param(request(raw_tensor(8, [4], "BF16")), ROW, "datatype must be one of", id="BF16, numpy has none"),
        pytest.param(request(raw_tensor(2, [2], "BOOL")), b"\x01\x02", "0 or 1", id="2 as a BOOL"),
        pytest.param(request(raw_tensor(3, [1], "BYTES")), b"\x01\x00\x00", "within element 0", id="half a length"),
        pytest.param(
            request(raw_tensor(5, [1], "BYTES")), b"\xff\xff\xff\xffa", "within element 0", id="4 GiB of text, told"
        ),
        pytest.param(request(raw_tensor(5, [1], "BYTES")), b"\x02\0\0\0a", "within element 0", id="half an element"),
        pytest.param(
            request(raw_tensor(5, [2], "BYTES")), b"\x01\0\0\0a", "needs 2 elements, the bytes have 1", id="1 of 2"
        ),
        pytest.param(
            request(raw_tensor(8, [1], "BYTES")), bytes(8), "needs 1 elements, the bytes have more", id="2 of 1"
        ),
        pytest.param(
            request(raw_tensor(8, [1, 2], shared_memory_region="r")), ROW, "no shared_memory_region", id="shared memory"
        ),
        pytest.param(
            request(raw_tensor(8, [1, 2]), parameters={"binary_data_output": 1}), ROW, "true or false", id="1 for true"
        ),
        pytest.param(
            request(outputs=[{"name": "y", "parameters": {"binary_data": "yes"}}]), b"", "outputs[0]", id="yes for true"
        ),
        pytest.param(
            request(outputs=[{"name": "y", "parameters": {"classification": 3}}]), b"", "no classification", id="top 3"
        ),
        pytest.param(request(outputs=[{"name": "y"}] * 2), b"", "'y' is there twice", id="an output twice"),
        pytest.param(request(raw_tensor(12, [1, 3])), ROW + bytes(4), "must have shape [-1, 2]", id="another width"),
    ],
)
def test_a_bad_raw_request_is_told_what_is_wrong_with_it(head: Any, tail: bytes, says: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Problem) as refused:
            asked(head, tail, metadata=ROWS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused.value.code is Code.BAD_INPUT
    assert says in refused.value.detail
    assert len(refused.value.detail) < 300
    assert peak < 100_000  # nothing is allocated for what is only declared


def test_raw_bytes_need_the_header_that_says_where_they_begin() -> None:
    with pytest.raises(Problem, match="needs the header inference-header-content-length"):
        v2.decode(orjson.dumps(request(raw_tensor(8, [1, 2]))), ROWS)


def test_json_longer_than_the_body_is_refused() -> None:
    with pytest.raises(Problem, match="is 100, the body has 2 bytes") as refused:
        v2.decode(b"{}", ROWS, 100)
    assert refused.value.code is Code.BAD_REQUEST


def test_a_large_body_is_not_copied_and_the_model_may_write_into_it() -> None:
    body = bytearray(b" " * ALIGNMENT + ROW)  # as it is received: aligned
    body[:2] = b"{}"
    array = from_raw(memoryview(body)[ALIGNMENT:], "FP32", [1, 2], "x")
    assert np.shares_memory(array, np.frombuffer(body, np.uint8))
    array += 1
    assert array.tolist() == [[2, 3]]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(memoryview(ROW), id="bytes, which others may hold"),
        pytest.param(memoryview(bytearray(b"!" + ROW))[1:], id="numbers across their boundaries"),
    ],
)
def test_what_cannot_be_used_as_it_is_is_copied(data: memoryview) -> None:
    array = from_raw(data, "FP32", [1, 2], "x")
    assert array.flags.behaved
    assert not np.shares_memory(array, np.frombuffer(data, np.uint8))
    array += 1
    assert data.tobytes() == ROW


def test_a_raw_output_is_answered_from_where_it_lies() -> None:
    output = np.arange(6, dtype=np.float32).reshape(2, 3)
    answer = v2.encode(v2.Request({}, raw=True), {"y": output}, "digits", SERVED)
    (part,) = answer.tail
    assert np.shares_memory(np.frombuffer(part, np.uint8), output)
    assert dict(answer.headers) == {
        b"content-type": b"application/octet-stream",
        b"inference-header-content-length": b"%d" % len(answer.body),
    }


@pytest.mark.parametrize(
    ("members", "raw"),
    [
        pytest.param({}, [], id="JSON unless asked otherwise"),
        pytest.param({"parameters": {"binary_data_output": True}}, ["a", "b"], id="all of them"),
        pytest.param({"outputs": [{"name": "b", "parameters": {"binary_data": True}}, {"name": "a"}]}, ["b"], id="one"),
        pytest.param(
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "b"}, {"name": "a", "parameters": {"binary_data": False}}],
            },
            ["b"],
            id="all but the one that says no",
        ),
    ],
)
def test_outputs_are_raw_as_the_request_says(members: dict[str, Any], raw: list[str]) -> None:
    wanted = asked(request(**members))
    told, tail = answered({"a": np.array([1], np.int8), "b": np.array(["né"])}, wanted)
    sizes = {
        output["name"]: output["parameters"]["binary_data_size"] for output in told["outputs"] if "data" not in output
    }
    assert list(sizes) == raw
    assert list(sizes.values()) == [len(part) for part in tail]
    assert tail == [{"a": b"\x01", "b": b"\x03\0\0\0n\xc3\xa9"}[name] for name in raw]


@pytest.mark.parametrize(
    ("declared", "body", "array"),
    [
        pytest.param(spec("x", "FP32", -1, 2), ROW * 3, np.array([[1, 2]] * 3, np.float32), id="as many rows as come"),
        pytest.param(spec("x", "INT8", 2, 2), b"\1\2\3\4", np.array([[1, 2], [3, 4]], np.int8), id="a fixed shape"),
        pytest.param(spec("x", "BYTES", -1), b"\0any", np.array([b"\0any"], object), id="one element, whole"),
    ],
)
def test_a_body_without_json_is_the_models_one_input(declared: Any, body: bytes, array: Any) -> None:
    found = v2.decode(body, Metadata("test", (declared,)), 0)
    assert (datatype_of(found.inputs["x"]), found.inputs["x"].tolist()) == (declared.datatype, array.tolist())
    assert found.raw


@pytest.mark.parametrize(
    ("declared", "body", "says"),
    [
        pytest.param([], ROW, "declares one input, this one declares 0", id="undeclared"),
        pytest.param([spec("x", "FP32", -1)] * 2, ROW, "this one declares 2", id="two inputs"),
        pytest.param([spec("x", "FP32", -1, -1)], ROW, "leaves open which shape", id="two dimensions unknown"),
        pytest.param([spec("x", "FP32", -1, 2)], b"", "at least 8 bytes", id="nothing"),
        pytest.param([spec("x", "FP32", -1, 2)], ROW + b"!", "needs 8 bytes, not 9", id="a byte too many"),
        pytest.param([spec("x", "FP32", -1, 0)], ROW, "at least 0 bytes", id="a model of nothing"),
        pytest.param([spec("x", "BYTES", 2)], ROW, "is one element", id="two texts"),
    ],
)
def test_a_body_without_json_that_leaves_something_open_is_refused(declared: Any, body: bytes, says: str) -> None:
    with pytest.raises(Problem) as refused:
        v2.decode(body, Metadata("test", tuple(declared)), 0)
    assert says in refused.value.detail
