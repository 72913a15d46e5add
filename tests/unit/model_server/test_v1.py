"""V1: rows to predictions, columns to outputs."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson
import pytest

from model_server.errors import Code, Problem
from model_server.models.base import Metadata
from model_server.rest import v1
from model_serving import FakeModel, spec

ROWS = FakeModel().metadata  # x: FP32 [-1, 2]
UNTOLD = Metadata("python")
TWO = Metadata("test", (spec("a", "FP32", -1), spec("b", "INT64", -1, 2)))
TEXT = Metadata("test", (spec("text", "BYTES", -1),))


def decoded(body: Any, metadata: Metadata) -> dict[str, Any]:
    return v1.decode(orjson.dumps(body), metadata).inputs


def answered(outputs: dict[str, Any], *, columns: bool = False) -> Any:
    answer = v1.encode(v1.Request({}, columns), outputs)
    assert not answer.tail
    return orjson.loads(answer.body)


def test_rows_become_the_models_single_input() -> None:
    inputs = decoded({"instances": [[1, 2], [3, 4]]}, ROWS)
    assert inputs["x"].dtype == np.float32
    assert inputs["x"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"instances": [{"a": 1, "b": [2, 3]}, {"b": [5, 6], "a": 4}]}, id="rows that name the inputs"),
        pytest.param({"inputs": {"a": [1, 4], "b": [[2, 3], [5, 6]]}}, id="columns by name"),
        pytest.param(
            {"signature_name": "x", "inputs": {"b": [[2, 3], [5, 6]], "a": [1, 4]}}, id="with members nobody needs"
        ),
    ],
)
def test_a_model_with_several_inputs_gets_them_by_name(body: Any) -> None:
    inputs = decoded(body, TWO)
    assert (inputs["a"].tolist(), inputs["a"].dtype) == ([1, 4], np.float32)
    assert (inputs["b"].tolist(), inputs["b"].dtype) == ([[2, 3], [5, 6]], np.int64)


def test_the_column_of_a_single_input_needs_no_name() -> None:
    assert decoded({"inputs": [[1, 2]]}, ROWS)["x"].tolist() == [[1, 2]]
    assert decoded({"inputs": 5}, Metadata("test", (spec("n", "INT64"),)))["n"].shape == ()


@pytest.mark.parametrize(
    ("instances", "dtype"),
    [([[1, 2]], np.int64), ([[1, 2.5]], np.float64), ([True], np.bool_), (["a"], np.object_)],
)
def test_a_model_that_declares_nothing_gets_the_type_the_json_has(instances: Any, dtype: Any) -> None:
    assert decoded({"instances": instances}, UNTOLD)[v1.UNNAMED].dtype == dtype


@pytest.mark.parametrize(
    ("body", "values"),
    [
        pytest.param({"instances": [{"b64": "AP8="}, {"b64": ""}]}, [b"\x00\xff", b""], id="rows"),
        pytest.param({"instances": [{"text": {"b64": "AP8="}}]}, [b"\x00\xff"], id="rows with names"),
        pytest.param({"inputs": {"text": [{"b64": "AP8="}, "ηλιος"]}}, [b"\x00\xff", "ηλιος".encode()], id="a column"),
        pytest.param({"inputs": [{"b64": "AP8="}]}, [b"\x00\xff"], id="the only column"),
    ],
)
def test_bytes_come_in_base64(body: Any, values: list[bytes]) -> None:
    assert decoded(body, TEXT)["text"].tolist() == values


def test_one_value_in_base64_is_a_scalar() -> None:
    inputs = decoded({"inputs": {"b64": "AP8="}}, Metadata("test", (spec("text", "BYTES"),)))
    assert inputs["text"].item() == b"\x00\xff"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param([], "must be a JSON object", id="a list"),
        pytest.param({}, "instances", id="neither rows nor columns"),
        pytest.param({"instances": [[1, 2]], "inputs": [[1, 2]]}, "instances", id="both"),
        pytest.param({"instances": {}}, "must be a list", id="rows as an object"),
        pytest.param({"instances": []}, "must not be empty", id="no rows"),
        pytest.param({"instances": [[]]}, "must not be empty", id="an empty row"),
        pytest.param({"inputs": {}}, "'x' is missing", id="no columns"),
        pytest.param({"inputs": {"x": []}}, "inputs['x'] must not be empty", id="an empty column"),
        pytest.param({"inputs": {"x": [[1, 2]], "z": [1]}}, "'z' is unknown", id="a column too many"),
        pytest.param({"instances": [[1, 2], [3]]}, "not nested as shape", id="ragged rows"),
        pytest.param({"instances": [[1, 2], 3]}, "not nested as shape", id="a row that is a number"),
        pytest.param({"instances": [[1, 2, 3]]}, "must have shape [-1, 2]", id="another width"),
        pytest.param({"instances": [["a", "b"]]}, "FP32 needs numbers", id="strings for numbers"),
        pytest.param({"instances": [[1, None]]}, "element 1 is None", id="null"),
        pytest.param({"instances": [[1, True]]}, "element 1 is True", id="true"),
        pytest.param({"instances": [[1, 1e39]]}, "does not fit FP32", id="too large a number"),
        pytest.param({"instances": [{"z": [1, 2]}]}, "'x' is missing", id="rows with another name"),
        pytest.param({"instances": [{"x": [1, 2]}, {"y": [1, 2]}]}, "instances[1]", id="rows with different names"),
        pytest.param({"instances": [{"x": [1, 2]}, [1, 2]]}, "instances[1]", id="rows with and without names"),
        pytest.param({"instances": [{"x": "a"}]}, "'x' of the instances: FP32 needs numbers", id="text by name"),
        pytest.param({"instances": [[1, {"b64": "AA=="}]]}, "element 0 is 1", id="base64 among numbers"),
        pytest.param({"instances": [{"b64": "AA=="}]}, "must be FP32, not BYTES", id="base64 for numbers"),
        pytest.param({"instances": [{"b64": "!"}]}, "element 0 is no base64: '!'", id="what is no base64"),
        pytest.param({"instances": [{"b64": "AA="}]}, "no base64", id="base64 that is cut off"),
        pytest.param({"instances": [{"b64": "\u0661"}]}, "no base64", id="base64 beyond ASCII"),
        pytest.param({"instances": [{"b64": 7}]}, 'BYTES needs strings or {"b64"', id="a number as base64"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong_with_it(body: Any, says: str) -> None:
    with pytest.raises(Problem) as refused:
        decoded(body, ROWS)
    assert refused.value.code is Code.BAD_INPUT
    assert says in refused.value.detail


def test_mixed_values_have_no_type() -> None:
    with pytest.raises(Problem, match="all numbers, all strings or all booleans"):
        decoded({"instances": [1, "a"]}, UNTOLD)


def test_rows_without_names_do_not_say_which_of_several_inputs_they_are() -> None:
    for body in ({"instances": [1]}, {"inputs": [1]}):
        with pytest.raises(Problem, match=r"several inputs \('a', 'b'\): name them"):
            decoded(body, TWO)


@pytest.mark.parametrize(
    ("outputs", "predictions"),
    [
        pytest.param({"y": np.array([[1.0, 2.0]])}, [[1.0, 2.0]], id="one output: its rows"),
        pytest.param({"y": np.array(5.0)}, 5.0, id="a scalar"),
        pytest.param({"y": np.array([np.nan, -np.inf])}, [None, None], id="what JSON lacks is null"),
        pytest.param({"y": np.array(["cat"])}, ["cat"], id="labels of text"),
        pytest.param(
            {"label": np.array([3, 4]), "p": np.array([[0.5], [0.25]])},
            [{"label": 3, "p": [0.5]}, {"label": 4, "p": [0.25]}],
            id="several outputs: an object per row",
        ),
        pytest.param(
            {"label": np.array([3, 4]), "sum": np.array([1])},
            {"label": [3, 4], "sum": [1]},
            id="outputs of different lengths: one object",
        ),
    ],
)
def test_predictions_have_the_shape_that_clients_of_v1_expect(outputs: dict[str, Any], predictions: Any) -> None:
    assert answered(outputs) == {"predictions": predictions}


@pytest.mark.parametrize(
    ("outputs", "columns"),
    [
        pytest.param({"y": np.array([1, 2])}, [1, 2], id="one output"),
        pytest.param({"y": np.array([1, 2]), "z": np.array(["a"])}, {"y": [1, 2], "z": ["a"]}, id="several, by name"),
    ],
)
def test_columns_are_answered_as_columns(outputs: dict[str, Any], columns: Any) -> None:
    assert v1.decode(b'{"inputs": [[1, 2]]}', ROWS).columns
    assert answered(outputs, columns=True) == {"outputs": columns}


def test_an_output_named_bytes_is_answered_in_base64() -> None:
    images = np.array([[b"\x00\xff", b"png"]], object)
    encoded = [[{"b64": base64.b64encode(item).decode()} for item in images[0]]]
    assert answered({"image_bytes": images}) == {"predictions": encoded}


def test_bytes_that_are_no_text_need_such_a_name() -> None:
    with pytest.raises(Problem, match="no text") as failed:
        answered({"image": np.array([b"\xff"], object)})
    assert failed.value.code is Code.MODEL_ERROR
