"""scikit-learn models by skops: served when they hold nothing but trusted types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from model_artifacts import write, zipped
from model_server.errors import Code, LoadFailure, Problem, Reason
from model_server.models.skops_model import SkopsModel
from model_serving import spec

DATA = np.array([[0.0, 0.0], [0.1, 0.1], [5.0, 5.0], [5.1, 5.0]])
LABELS = np.array(["cat", "cat", "dog", "dog"])


def saved(tmp_path: Path, estimator: Any) -> Path:
    path = tmp_path / "model.skops"
    skops.io.dump(estimator, path)
    return path


def loaded(tmp_path: Path, estimator: Any) -> SkopsModel:
    return SkopsModel(saved(tmp_path, estimator), threads=1, max_bytes=10**7)


def test_a_classifier_answers_labels_and_probabilities(tmp_path: Path) -> None:
    model = loaded(tmp_path, GaussianNB().fit(DATA, LABELS))
    assert model.metadata.inputs == (spec("input", "FP64", -1, 2),)
    assert model.metadata.outputs == (spec("predictions", "BYTES", -1), spec("probabilities", "FP64", -1, 2))
    answer = model.predict({"anything": DATA[1:3].astype(np.float32)})
    assert answer["predictions"].tolist() == ["cat", "dog"]
    np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1)


def test_a_regressor_answers_numbers(tmp_path: Path) -> None:
    model = loaded(tmp_path, LinearRegression().fit(DATA, DATA))
    assert model.metadata.outputs == (spec("predictions", "FP64", -1, 2),)
    np.testing.assert_allclose(model.predict({"input": DATA})["predictions"], DATA, atol=1e-9)


def test_an_estimator_that_cannot_predict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailure, match="StandardScaler, which has no predict"):
        loaded(tmp_path, StandardScaler().fit(DATA))


def test_types_that_may_run_code_are_refused_by_name(tmp_path: Path) -> None:
    import os

    with pytest.raises(LoadFailure) as refused:
        loaded(tmp_path, FunctionTransformer(os.system))
    assert refused.value.reason is Reason.UNSAFE_FORMAT
    assert "system" in refused.value.message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(zipped({"schema.json": b"{}"}), Reason.LOAD_FAILED, id="an empty schema"),
        pytest.param(zipped({"schema.json": b"not JSON"}), Reason.LOAD_FAILED, id="a schema that is no JSON"),
        pytest.param(b"PK\x03\x04", Reason.UNSUPPORTED_FORMAT, id="no zip"),
        pytest.param(zipped({"schema.json": b" " * 10**7 + b"{}"}), Reason.UNSAFE_FORMAT, id="larger than allowed"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes, reason: Reason) -> None:
    with pytest.raises(LoadFailure) as refused:
        SkopsModel(write(tmp_path, "m.skops", content), threads=1, max_bytes=10**7)
    assert refused.value.reason is reason


@pytest.mark.parametrize(
    "inputs",
    [{}, {"a": DATA, "b": DATA}, {"a": np.full((1, 2), np.nan)}, {"a": np.ones((1, 7))}],
    ids=["none", "two", "not a number", "too many features"],
)
def test_input_it_cannot_take_is_the_clients_fault(tmp_path: Path, inputs: dict[str, Any]) -> None:
    model = loaded(tmp_path, LinearRegression().fit(DATA, DATA[:, 0]))
    with pytest.raises(Problem) as refused:
        model.predict(inputs)
    assert refused.value.code is Code.BAD_INPUT
