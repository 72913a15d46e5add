"""Python models: how a class is found, made and asked, and how each mistake in it is told."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from model_artifacts import write
from model_server.errors import Code, LoadFailure, Problem, Reason
from model_server.models import loading
from model_server.models.python_model import PythonModel
from model_serving import rows, spec

EXAMPLES = Path(__file__).parents[3] / "model-server" / "examples"
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def imports_undone() -> Iterator[None]:
    """A model is imported into the process; here there are many."""
    path, modules, bytecode = list(sys.path), set(sys.modules), sys.dont_write_bytecode
    yield
    sys.path[:] = path
    sys.dont_write_bytecode = bytecode
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def module(tmp_path: Path, source: str) -> Path:
    """A module under a name that no other test has used."""
    return write(tmp_path, f"user_model_{next(_numbers)}.py", dedent(source).encode())


DOUBLE = """
    from pathlib import Path

    class Double:
        inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]

        def load(self, path):
            self.factor = float((Path(path) / "factor").read_text())

        def predict(self, inputs):
            if (inputs["x"] < 0).any():
                raise ValueError("x must not be negative")
            return {"y": self.factor * inputs["x"]}
"""


def test_a_class_is_made_loaded_and_asked(tmp_path: Path) -> None:
    write(tmp_path, "factor", b"2")
    model = PythonModel(module(tmp_path, DOUBLE), "")
    assert model.metadata.inputs == (spec("x", "FP32", -1, 2),)
    assert model.predict({"x": rows([1, 2])})["y"].tolist() == [[2, 4]]


def test_a_value_error_means_that_the_input_is_to_blame(tmp_path: Path) -> None:
    write(tmp_path, "factor", b"2")
    model = PythonModel(module(tmp_path, DOUBLE), "")
    with pytest.raises(Problem, match="x must not be negative") as refused:
        model.predict({"x": rows([-1, 2])})
    assert refused.value.code is Code.BAD_INPUT


def test_a_package_is_imported_by_its_entrypoint(tmp_path: Path) -> None:
    package = f"user_package_{next(_numbers)}"
    write(tmp_path, f"{package}/__init__.py", b"")
    write(tmp_path, f"{package}/helper.py", b"FACTOR = 3\n")
    source = f"from {package}.helper import FACTOR\nclass A:\n    def predict(self, inputs):\n        return FACTOR\n"
    write(tmp_path, f"{package}/model.py", source.encode())
    model = PythonModel(tmp_path, f"{package}.model:A")
    assert model.predict({})["output"].tolist() == 3


@pytest.mark.parametrize(
    ("source", "entrypoint", "says"),
    [
        pytest.param("x = 1", "", "has 0 classes with predict", id="no class"),
        pytest.param(
            "class A:\n  def predict(self, i): ...\nclass B(A): pass",
            "",
            "has 2 classes with predict",
            id="two classes",
        ),
        pytest.param("class A: pass", "{module}:B", "has no class 'B'", id="a class there is not"),
        pytest.param("class A: pass", "{module}:A", "no method predict", id="a class that cannot predict"),
        pytest.param("import nothing_like_this", "", "No module named 'nothing_like_this'", id="a missing library"),
        pytest.param("1 / 0", "", "ZeroDivisionError: division by zero", id="an error on import"),
        pytest.param("raise SystemExit(0)", "", "SystemExit", id="an exit on import"),
        pytest.param("def f(:", "", "SyntaxError", id="broken syntax"),
        pytest.param(
            "class A:\n  def __init__(self, x): ...\n  def predict(self, i): ...",
            "",
            "A could not be loaded",
            id="arguments",
        ),
        pytest.param(
            "class A:\n  def load(self, p): raise OSError('no weights')\n  def predict(self, i): ...",
            "",
            "OSError: no weights",
            id="an error in load",
        ),
        pytest.param(
            "class A:\n  inputs = [{'name': 'x'}]\n  def predict(self, i): ...",
            "",
            "inputs must be a list",
            id="half a spec",
        ),
        pytest.param(
            "class A:\n  inputs = [{'name': 'x', 'datatype': 'F', 'shape': []}]\n  def predict(self, i): ...",
            "",
            "datatype 'F'",
            id="an unknown datatype",
        ),
    ],
)
def test_every_mistake_is_told_in_words(tmp_path: Path, source: str, entrypoint: str, says: str) -> None:
    path = module(tmp_path, source)
    with pytest.raises(LoadFailure) as refused:
        PythonModel(path, entrypoint.format(module=path.stem))
    assert refused.value.reason is Reason.LOAD_FAILED
    assert says in refused.value.message


def test_one_file_may_have_any_name(tmp_path: Path) -> None:
    path = write(tmp_path, f"model-{next(_numbers)}.onnx", b"class A:\n    def predict(self, inputs): return 1\n")
    assert PythonModel(path, "").predict({})["output"].tolist() == 1


def test_the_entrypoint_of_one_file_names_that_file(tmp_path: Path) -> None:
    with pytest.raises(LoadFailure, match="its entrypoint begins with"):
        PythonModel(module(tmp_path, "class A: ..."), "model:A")


def test_a_package_cannot_take_the_name_of_an_installed_one(tmp_path: Path) -> None:
    write(tmp_path, "json/__init__.py", b"class A:\n    def predict(self, inputs): ...\n")
    with pytest.raises(LoadFailure, match="rename the model's"):
        PythonModel(tmp_path, "json:A")


def test_a_model_cannot_take_the_name_of_an_installed_module(tmp_path: Path) -> None:
    with pytest.raises(LoadFailure, match="rename the model's file"):
        PythonModel(write(tmp_path, "json.py", b"class A:\n    def predict(self, inputs): ...\n"), "")


@pytest.mark.parametrize(
    ("returned", "outputs"),
    [
        pytest.param("{'y': np.ones(2, np.float32)}", {"y": [1.0, 1.0]}, id="arrays by name"),
        pytest.param("[1, 2]", {"output": [1, 2]}, id="a list"),
        pytest.param("{'label': ['cat']}", {"label": ["cat"]}, id="text"),
        pytest.param("np.arange(2, dtype='>i4')", {"output": [0, 1]}, id="the other byte order"),
    ],
)
def test_what_it_returns_becomes_tensors(tmp_path: Path, returned: str, outputs: dict[str, Any]) -> None:
    source = f"import numpy as np\nclass A:\n    def predict(self, inputs):\n        return {returned}\n"
    model = PythonModel(module(tmp_path, source), "")
    answered = model.predict({})
    assert {name: array.tolist() for name, array in answered.items()} == outputs
    assert all(array.dtype.isnative for array in answered.values())


def test_a_type_without_a_name_in_the_protocol_is_the_models_fault(tmp_path: Path) -> None:
    model = PythonModel(module(tmp_path, "class A:\n    def predict(self, inputs): return 1j\n"), "")
    with pytest.raises(TypeError, match="complex128"):
        model.predict({})


def test_python_is_run_only_when_asked_for(tmp_path: Path) -> None:
    source = "class A:\n    def predict(self, inputs): return 1\n"
    path = module(tmp_path, source)
    with pytest.raises(LoadFailure) as refused:
        loading.load(path, "auto", "", 1, 10**6)
    assert refused.value.reason is Reason.UNSAFE_FORMAT
    assert loading.load(path, "python", "", 1, 10**6).metadata.platform == "python"
    another = module(tmp_path, source)
    assert loading.load(another, "auto", f"{another.stem}:A", 1, 10**6).metadata.platform == "python"


def test_a_model_of_another_format_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    path = module(tmp_path, "class A:\n    def predict(self, inputs): return 1\n")
    with pytest.raises(LoadFailure, match="is python by its content, not onnx"):
        loading.load(path, "onnx", "", 1, 10**6)


@pytest.mark.parametrize(
    ("file", "entrypoint", "environment", "output"),
    [
        ("sleep.py", "sleep:Sleep", {"INFLIGHT_EXAMPLE_WAIT_MS": "1"}, {"x": [[1.0]]}),
        ("calculate.py", "calculate:Calculate", {"INFLIGHT_EXAMPLE_STEPS": "3"}, {"sum": [33]}),
    ],
)
def test_the_examples_work(
    monkeypatch: pytest.MonkeyPatch, file: str, entrypoint: str, environment: dict[str, str], output: Any
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    model = PythonModel(EXAMPLES / file, entrypoint)
    assert loading.warm_up(model) == "done"
    answered = model.predict({"x": rows([1.0])})
    assert {name: array.tolist() for name, array in answered.items()} == output
