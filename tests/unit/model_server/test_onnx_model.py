"""ONNX models: their tensors, scikit-learn's exports, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import structlog
from onnx import TensorProto

from model_artifacts import add_one, identity, write
from model_server.errors import Code, LoadFailure, Problem, Reason
from model_server.models import loading
from model_server.models.onnx_model import OnnxModel
from model_serving import rows, spec


def loaded(tmp_path: Path, content: bytes) -> OnnxModel:
    return OnnxModel(write(tmp_path, "model.onnx", content), threads=1)


def test_names_shapes_and_types_are_told_as_v2_names_them(tmp_path: Path) -> None:
    metadata = loaded(tmp_path, add_one()).metadata
    assert metadata.inputs == (spec("x", "FP32", -1, 2),)
    assert metadata.outputs == (spec("y", "FP32", -1, 2),)


def test_it_predicts(tmp_path: Path) -> None:
    (answer,) = loaded(tmp_path, add_one()).predict({"x": rows([1, 2])}).values()
    assert answer.tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("onnx_type", "datatype", "values"),
    [
        (TensorProto.BOOL, "BOOL", np.array([True, False])),
        (TensorProto.UINT8, "UINT8", np.array([0, 255], np.uint8)),
        (TensorProto.INT16, "INT16", np.array([-5, 5], np.int16)),
        (TensorProto.INT64, "INT64", np.array([-5, 5], np.int64)),
        (TensorProto.UINT64, "UINT64", np.array([0, 2**64 - 1], np.uint64)),
        (TensorProto.FLOAT16, "FP16", np.array([0.5, 1], np.float16)),
        (TensorProto.DOUBLE, "FP64", np.array([0.5, 1])),
    ],
)
def test_every_numeric_type_passes_through(tmp_path: Path, onnx_type: int, datatype: str, values: Any) -> None:
    model = loaded(tmp_path, identity(onnx_type, ["n"]))
    assert model.metadata.inputs[0].datatype == datatype
    answer = model.predict({"x": values})["y"]
    np.testing.assert_array_equal(answer, values)
    assert answer.dtype == values.dtype


def test_text_is_bytes_outside_and_strings_inside(tmp_path: Path) -> None:
    model = loaded(tmp_path, identity(TensorProto.STRING, ["n"]))
    assert model.metadata.inputs[0].datatype == "BYTES"
    answer = model.predict({"x": np.array(["ηλιος".encode(), b""], object)})["y"]
    assert answer.tolist() == ["ηλιος", ""]
    with pytest.raises(Problem, match="input 'x' must be text in UTF-8") as refused:
        model.predict({"x": np.array([b"fine", b"\xff"], object)})
    assert refused.value.code is Code.BAD_INPUT


@pytest.mark.parametrize("labels", [[0, 1, 2], ["cat", "dog", "owl"]], ids=["numbers", "text"])
@pytest.mark.parametrize("zipmap", [True, False], ids=["zipmap", "no zipmap"])
def test_scikit_learns_classifiers_answer_labels_and_a_matrix(tmp_path: Path, labels: list[Any], zipmap: bool) -> None:
    from skl2onnx import to_onnx
    from sklearn.naive_bayes import GaussianNB

    data = np.array([[0.0, 0.0], [0.1, 0.1], [5.0, 5.0], [5.1, 5.0], [9.0, 9.0], [9.1, 9.0]], np.float32)
    classifier = GaussianNB().fit(data, np.repeat(labels, 2))
    exported = to_onnx(classifier, data[:1], options={"zipmap": zipmap})
    model = loaded(tmp_path, exported.SerializeToString())
    answer = model.predict({model.metadata.inputs[0].name: data})
    label, probability = answer.values()
    assert label.tolist() == np.repeat(labels, 2).tolist()
    np.testing.assert_allclose(probability, classifier.predict_proba(data), atol=1e-5)
    assert [output.datatype for output in model.metadata.outputs] == ["INT64" if labels[0] == 0 else "BYTES", "FP32"]


def test_external_data_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(LoadFailure) as refused:
        loaded(tmp_path, add_one(external=True))
    assert refused.value.reason is Reason.UNSAFE_FORMAT


def test_a_model_the_runtime_cannot_load_says_so_without_paths(tmp_path: Path) -> None:
    broken = add_one().replace(b"Add", b"Adx")
    with pytest.raises(LoadFailure) as refused:
        loaded(tmp_path, broken)
    assert refused.value.reason is Reason.LOAD_FAILED
    assert str(tmp_path) not in refused.value.message


def test_a_shape_that_only_the_runtime_knows_to_be_wrong_is_the_clients_fault(tmp_path: Path) -> None:
    with pytest.raises(Problem) as refused:
        loaded(tmp_path, add_one()).predict({"x": rows([1, 2, 3])})
    assert refused.value.code is Code.BAD_INPUT


@pytest.mark.parametrize(
    ("content", "outcome"),
    [
        pytest.param(add_one(), "done", id="dynamic rows"),
        pytest.param(identity(TensorProto.STRING, ["n"]), "skipped: the model declares no numeric inputs", id="text"),
        pytest.param(identity(TensorProto.FLOAT, [2**15, 2**15]), "skipped: the inputs are too large", id="huge"),
    ],
)
def test_it_is_warmed_up_where_that_can_be_done(tmp_path: Path, content: bytes, outcome: str) -> None:
    assert loading.warm_up(loaded(tmp_path, content)) == outcome


# Which device predictions run on -------------------------------------------------------------------------------------

CPU = ["CPUExecutionProvider"]
GPU = ["CUDAExecutionProvider", *CPU]
LIBRARIES = ["CUDA's libraries are loaded"]


class FakeRuntime:
    """An onnxruntime that has, or seems to have, a CUDA provider."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, available: Sequence[str], got: Sequence[str] | Exception
    ) -> None:
        self.tried: list[list[str]] = []
        real = onnxruntime.InferenceSession
        outer = self

        class Session(real):  # type: ignore[misc, valid-type]
            def __init__(self, path: str, options: Any, providers: list[str], enable_fallback: int) -> None:
                outer.tried.append(providers)
                if providers == GPU and isinstance(got, Exception):
                    raise got
                super().__init__(path, options, providers=CPU, enable_fallback=enable_fallback)
                self.claimed = providers if isinstance(got, Exception) or providers == CPU else got

            def get_providers(self) -> Any:
                return list(self.claimed)

        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(available))
        monkeypatch.setattr(onnxruntime, "preload_dlls", self._preload)

    def _preload(self) -> None:
        self.tried.append(LIBRARIES)
        print("Failed to load libcublas.so.13: no such file")


@dataclass(frozen=True)
class Case:
    """What was asked for and found, which sessions are then tried, and what the log says."""

    device: str
    available: Sequence[str]
    got: Sequence[str] | Exception
    tried: list[list[str]]
    says: str | None


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case("cpu", GPU, GPU, [CPU], None), id="a GPU that nobody asked for"),
        pytest.param(Case("cuda", GPU, GPU, [LIBRARIES, GPU], "predictions run on the GPU"), id="a GPU"),
        pytest.param(Case("cuda", CPU, GPU, [CPU], "has no CUDAExecutionProvider"), id="a build without CUDA"),
        pytest.param(
            Case("cuda", GPU, CPU, [LIBRARIES, GPU, CPU], "CUDA did not start: Failed to load libcublas"),
            id="no driver: onnxruntime goes on without a word",
        ),
        pytest.param(
            Case("cuda", GPU, RuntimeError("no CUDA-capable device"), [LIBRARIES, GPU, CPU], "no CUDA-capable device"),
            id="no device: onnxruntime fails",
        ),
    ],
)
def test_a_gpu_is_used_where_there_is_one_and_else_one_line_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], case: Case
) -> None:
    runtime = FakeRuntime(monkeypatch, case.available, case.got)
    with structlog.testing.capture_logs() as lines:
        model = OnnxModel(write(tmp_path, "model.onnx", add_one()), 1, case.device)
    assert runtime.tried == case.tried
    assert [case.says in f"{line['event']} {line.get('why')}" for line in lines] == ([True] if case.says else [])
    assert capfd.readouterr() == ("", ""), "the log is the place for it"
    x = np.ones((1, 2), np.float32)
    assert (model.predict({"x": x})["y"] == x + 1).all()
