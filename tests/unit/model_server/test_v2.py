"""V2 requests: every bad one is refused with what is wrong, before anything is allocated for it."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any
from unittest.mock import Mock

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model_server.errors import Code, Problem
from model_server.lifecycle import Served
from model_server.models.base import Metadata
from model_server.models.tensors import DATATYPES
from model_server.rest import v2
from model_serving import DIGEST, VERSION, FakeModel, request, spec, tensor

ROWS = FakeModel().metadata  # x: FP32 [-1, 2] → y: FP32 [-1, 2]
UNTOLD = Metadata("python")


def refusal(body: Any, metadata: Metadata = ROWS) -> Problem:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Problem) as refused:
        v2.decode(content, metadata)
    return refused.value


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"inputs": [', id="truncated"),
        pytest.param(b'{"inputs": [1,]}', id="a trailing comma"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(b'{"x": NaN}', id="NaN"),
        pytest.param(b'{"x": Infinity}', id="Infinity"),
        pytest.param(b'{"x": 1e400}', id="1e400"),
        pytest.param(b'{"x": ' + b"9" * 5000 + b"}", id="an integer of 5,000 digits"),
        pytest.param(b"[" * 100_000, id="100,000 brackets"),
        pytest.param(b'{"a":' * 50_000, id="50,000 nested objects"),
        pytest.param(b'{"x": "\xff"}', id="invalid UTF-8"),
        pytest.param(b'{"x": "\\ud800"}', id="half a surrogate pair"),
        pytest.param(b"\x80\x04\x95.", id="a pickle"),
    ],
)
def test_what_is_no_json_is_refused_as_such(body: bytes) -> None:
    assert refusal(body).code is Code.INVALID_JSON


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param([], "must be a JSON object", id="a list"),
        pytest.param({}, "inputs must be a list", id="no inputs"),
        pytest.param({"inputs": []}, "at least one", id="an empty list of inputs"),
        pytest.param({"inputs": {"x": 1}}, "inputs must be a list", id="inputs as an object"),
        pytest.param({"inputs": [7]}, "inputs[0] must be an object", id="a tensor that is a number"),
        pytest.param(request(id=7), "id must be a string", id="a number for an id"),
        pytest.param(request(parameters=[]), "parameters must be an object", id="parameters as a list"),
        pytest.param(request(outputs="y"), "outputs must be a list", id="outputs as a string"),
        pytest.param(request(outputs=[{"name": "z"}]), "no output 'z'", id="an output there is not"),
        pytest.param(request(outputs=[{}]), "outputs[0]", id="an output without a name"),
        pytest.param(request(tensor([1.0, 2.0], [1, 2], name="")), "name must be", id="an empty name"),
        pytest.param(request(tensor([1.0], [1], name="z")), "'x' is missing", id="another input"),
        pytest.param(
            request(tensor([1.0, 2.0], [1, 2]), tensor([1.0], [1], name="z")), "'z' is unknown", id="one input more"
        ),
        pytest.param(request(*[tensor([1.0, 2.0], [1, 2])] * 2), "there twice", id="an input twice"),
        pytest.param(request(tensor([1.0, 2.0], [1, 2], "FP8")), "datatype must be one of", id="unknown datatype"),
        pytest.param(request(tensor([1.0, 2.0], [1, 2], "FP64")), "must be FP32, not FP64", id="another datatype"),
        pytest.param(request(tensor([1.0, 2.0], [2])), "must have shape [-1, 2], not [2]", id="another rank"),
        pytest.param(request(tensor([1.0] * 3, [1, 3])), "must have shape [-1, 2], not [1, 3]", id="another width"),
        pytest.param(request(tensor([1.0] * 3, [1, 2])), "needs 2 elements, data has 3", id="more data than the shape"),
        pytest.param(request(tensor([], [1, 2])), "needs 2 elements, data has 0", id="no data"),
        pytest.param(request(tensor([], [0, 2])), "at least 1", id="an empty batch"),
        pytest.param(request(tensor([1.0], [-1, 2])), "at least 1", id="a negative dimension"),
        pytest.param(request(tensor([1.0], [2**31, 2**31])), "needs 46116860", id="2^62 elements declared"),
        pytest.param(request(tensor([1.0], [1] * 33)), "33 dimensions", id="33 dimensions"),
        pytest.param(request(tensor([1.0], [True, True])), "list of integers", id="true for a dimension"),
        pytest.param(request(tensor([1.0], [1.0])), "list of integers", id="1.0 for a dimension"),
        pytest.param(request({"name": "x", "datatype": "FP32", "data": [1.0]}), "shape must be", id="no shape"),
        pytest.param(request({"name": "x", "datatype": "FP32", "shape": [1, 2]}), "data must be a list", id="no data"),
        pytest.param(request(tensor("12", [1, 2])), "data must be a list", id="a string for data"),
        pytest.param(request(tensor([[1.0], [2.0]], [1, 2])), "2 rows", id="nested another way"),
        pytest.param(request(tensor([[1.0, 2.0, 3.0]], [1, 2])), "not nested as shape", id="a row too long"),
        pytest.param(request(tensor([[1.0, [2.0]]], [1, 2])), "element 1 is [2.0]", id="nested too deep"),
        pytest.param(request(tensor([1.0, "2"], [1, 2])), "element 1 is '2'", id="a string among numbers"),
        pytest.param(request(tensor([True, 2.0], [1, 2])), "element 0 is True", id="true among numbers"),
        pytest.param(request(tensor([None, 2.0], [1, 2])), "element 0 is None", id="null among numbers"),
        pytest.param(request(tensor([1e39, 2.0], [1, 2])), "does not fit FP32", id="too large for the datatype"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong_with_it(body: Any, says: str) -> None:
    problem = refusal(body)
    assert problem.code is Code.BAD_INPUT
    assert says in problem.detail
    assert len(problem.detail) < 500


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("UINT8", 256),
        ("UINT8", -1),
        ("INT8", 128),
        ("INT64", 2**63),
        ("UINT64", 2**64),
        ("INT32", 1.5),
        ("INT32", 1.0),
        ("FP16", 70_000),
        ("FP64", True),
        ("BOOL", 1),
        ("BYTES", 1),
    ],
)
def test_a_value_that_its_datatype_has_not_is_refused(datatype: str, value: Any) -> None:
    assert refusal(request(tensor([value], [1], datatype)), UNTOLD).code is Code.BAD_INPUT


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        ("BOOL", [True, False]),
        ("UINT8", [0, 255]),
        ("UINT64", [0, 2**64 - 1]),
        ("INT8", [-128, 127]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("FP16", [1, -65_504.0]),
        ("FP32", [1, 3.4e38]),
        ("FP64", [1, -1.7e308]),
        ("BYTES", ["", "ηλιος"]),
    ],
)
def test_every_datatype_takes_its_extremes(datatype: str, values: list[Any]) -> None:
    decoded = v2.decode(orjson.dumps(request(tensor(values, [2], datatype))), UNTOLD).inputs["x"]
    assert decoded.dtype == DATATYPES[datatype]
    expected = [value.encode() for value in values] if datatype == "BYTES" else np.array(values, decoded.dtype).tolist()
    assert decoded.tolist() == expected


def test_nothing_is_allocated_for_a_shape_that_the_data_does_not_fill() -> None:
    body = orjson.dumps(request(tensor([1.0], [2**40, 2**20])))
    tracemalloc.start()
    refusal(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000


def test_of_a_repeated_key_the_last_one_counts() -> None:
    assert v2.decode(b'{"id": "a", "id": "b", ' + orjson.dumps(request())[1:], ROWS).id == "b"


def test_flat_and_nested_data_are_the_same_tensor() -> None:
    flat = v2.decode(orjson.dumps(request(tensor([1, 2, 3, 4], [2, 2]))), ROWS).inputs["x"]
    nested = v2.decode(orjson.dumps(request(tensor([[1, 2], [3, 4]], [2, 2]))), ROWS).inputs["x"]
    np.testing.assert_array_equal(flat, nested)


def answer(answered: dict[str, Any], **members: Any) -> dict[str, Any]:
    asked = v2.decode(orjson.dumps(request(**members)), Metadata("python"))
    served = Served(FakeModel().metadata, Mock(), DIGEST, VERSION)
    parsed: dict[str, Any] = orjson.loads(v2.encode(asked, answered, "digits", served).body)
    return parsed


@given(
    array=st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.uint64, np.bool_]).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(max_dims=4, max_side=4))
    )
)
@settings(max_examples=100, deadline=None)
def test_what_is_encoded_decodes_to_the_same_tensor(array: Any) -> None:
    array = np.nan_to_num(array, posinf=1, neginf=-1) if array.dtype.kind == "f" else array
    (output,) = answer({"x": np.asfortranarray(array)})["outputs"]
    again = v2.decode(orjson.dumps(request(output)), UNTOLD).inputs["x"]
    np.testing.assert_array_equal(again, array)
    assert again.dtype == array.dtype


def test_not_a_number_is_answered_as_null() -> None:
    (output,) = answer({"y": np.array([1.0, np.nan, np.inf])})["outputs"]
    assert output["data"] == [1.0, None, None]


def test_text_is_answered_as_bytes_tensors() -> None:
    (output,) = answer({"label": np.array(["cat", "dog"])})["outputs"]
    assert (output["datatype"], output["data"]) == ("BYTES", ["cat", "dog"])


def test_the_outputs_asked_for_come_in_the_order_asked_for() -> None:
    outputs = {"a": np.array([1]), "b": np.array([2]), "c": np.array([3])}
    answered = answer(outputs, outputs=[{"name": "c"}, {"name": "a"}], id="7")
    assert [output["name"] for output in answered["outputs"]] == ["c", "a"]
    assert (answered["id"], answered["model_name"], answered["model_version"]) == ("7", "digits", VERSION)


def test_a_model_that_converts_takes_any_numeric_tensor_of_the_right_shape_by_any_name() -> None:
    converting = Metadata("scikit-learn", (spec("input", "FP64", -1, 2),), any_numeric=True)
    v2.decode(orjson.dumps(request(tensor([1, 2], [1, 2], "INT32", "pixels"))), converting)
    for bad in (
        request(tensor(["a", "b"], [1, 2], "BYTES")),
        request(tensor([1.0], [1, 1])),
        request(tensor([1.0, 2.0], [1, 2]), tensor([1.0, 2.0], [1, 2], name="z")),
    ):
        assert refusal(bad, converting).code is Code.BAD_INPUT
