"""V1: instances in, predictions out."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from model_server.errors import Code, Problem
from model_server.models.base import Metadata
from model_server.rest import v1
from model_serving import FakeModel, spec

ROWS = FakeModel().metadata
UNTOLD = Metadata("python")


def test_instances_become_the_models_single_input() -> None:
    inputs = v1.decode(b'{"instances": [[1, 2], [3, 4]]}', ROWS)
    assert inputs["x"].dtype == np.float32
    assert inputs["x"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("instances", "dtype"),
    [([[1, 2]], np.int64), ([[1, 2.5]], np.float64), ([True], np.bool_), (["a"], np.object_)],
)
def test_a_model_that_declares_nothing_gets_the_type_the_json_has(instances: Any, dtype: Any) -> None:
    assert v1.decode(orjson.dumps({"instances": instances}), UNTOLD)[v1.UNNAMED].dtype == dtype


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param({}, "instances", id="no instances"),
        pytest.param({"instances": {}}, "instances", id="an object"),
        pytest.param({"instances": []}, "must not be empty", id="an empty list"),
        pytest.param({"instances": [[]]}, "must not be empty", id="an empty row"),
        pytest.param({"instances": [[1, 2], [3]]}, "not nested as shape", id="ragged rows"),
        pytest.param({"instances": [[1, 2], 3]}, "not nested as shape", id="a row that is a number"),
        pytest.param({"instances": [[1, 2, 3]]}, "must have shape [-1, 2]", id="another width"),
        pytest.param({"instances": [["a", "b"]]}, "FP32 needs numbers", id="strings for numbers"),
        pytest.param({"instances": [{"x": 1}]}, "FP32 needs numbers", id="objects"),
    ],
)
def test_bad_instances_are_told_what_is_wrong(body: Any, says: str) -> None:
    with pytest.raises(Problem) as refused:
        v1.decode(orjson.dumps(body), ROWS)
    assert refused.value.code is Code.BAD_INPUT
    assert says in refused.value.detail


def test_mixed_values_have_no_type() -> None:
    with pytest.raises(Problem, match="all numbers, all strings or all booleans"):
        v1.decode(b'{"instances": [1, "a"]}', UNTOLD)


def test_a_model_with_several_inputs_is_for_v2() -> None:
    two = Metadata("test", (spec("a", "FP32", -1), spec("b", "FP32", -1)))
    with pytest.raises(Problem, match="use POST /v2"):
        v1.decode(b'{"instances": [1]}', two)


@pytest.mark.parametrize(
    ("outputs", "predictions"),
    [
        pytest.param({"y": np.array([[1.0, 2.0]])}, [[1.0, 2.0]], id="one output: its rows"),
        pytest.param({"y": np.array(5.0)}, 5.0, id="a scalar"),
        pytest.param({"y": np.array(["cat"])}, ["cat"], id="labels of text"),
        pytest.param(
            {"label": np.array([3, 4]), "p": np.array([[0.5], [0.25]])},
            [{"label": 3, "p": [0.5]}, {"label": 4, "p": [0.25]}],
            id="several outputs: an object per instance",
        ),
        pytest.param(
            {"label": np.array([3, 4]), "sum": np.array([1])},
            {"label": [3, 4], "sum": [1]},
            id="outputs of different lengths: one object",
        ),
    ],
)
def test_predictions_have_the_shape_that_clients_of_v1_expect(outputs: dict[str, Any], predictions: Any) -> None:
    assert orjson.loads(v1.encode(outputs)) == {"predictions": predictions}
