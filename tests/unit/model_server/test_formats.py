"""What a model is, is decided by its content; what could run code on loading is refused."""

from __future__ import annotations

import gzip
import random
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from model_artifacts import PICKLES, add_one, identity, npy, write, zipped
from model_server.errors import LoadFailure, Reason
from model_server.models import onnx_file, pickles
from model_server.models.detect import detect

SOURCE = b"class Model:\n    def predict(self, inputs):\n        return inputs\n"


def refusal(path: Path) -> LoadFailure:
    with pytest.raises(LoadFailure) as refused:
        detect(path)
    return refused.value


@pytest.mark.parametrize("name", ["model.onnx", "model.skops", "model.pkl", "model.py", "model"])
@pytest.mark.parametrize("wrapping", PICKLES)
def test_a_pickle_is_refused_whatever_it_is_wrapped_in_or_called(tmp_path: Path, wrapping: str, name: str) -> None:
    failure = refusal(write(tmp_path, name, PICKLES[wrapping]()))
    assert failure.reason is Reason.UNSAFE_FORMAT
    assert "Export the model to ONNX or skops" in failure.message


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        pytest.param(add_one(), "onnx", id="ONNX"),
        pytest.param(zipped({"schema.json": b"{}", "1.npy": npy(np.ones(3))}), "skops", id="skops"),
        pytest.param(SOURCE, "python", id="Python"),
        pytest.param(b"import os\nimport sys\n" + SOURCE, "python", id="Python that begins like an old pickle"),
        pytest.param(b"x = 1\n" + SOURCE, "python", id="Python that begins like zlib"),
    ],
)
@pytest.mark.parametrize("name", ["model.bin", "model.onnx", "model.pkl"])
def test_a_model_is_recognised_under_any_name(tmp_path: Path, content: bytes, kind: str, name: str) -> None:
    assert detect(write(tmp_path, name, content)) == kind


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "is empty", id="nothing"),
        pytest.param(b"<!DOCTYPE html><html></html>", "web page", id="a web page"),
        pytest.param(b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "HDF5", id="Keras"),
        pytest.param(b"\x7fELF" + b"\0" * 50, "native library", id="a native library"),
        pytest.param(npy(np.ones(3)), "numpy array", id="an array of numbers"),
        pytest.param(gzip.compress(add_one()), "compressed", id="a compressed ONNX model"),
        pytest.param(zipped({"config.json": b"{}"}), "without skops' schema.json", id="any other zip"),
        pytest.param(b"PK\x03\x04 not really", "no model that is known", id="a zip's first bytes only"),
        pytest.param(bytes(range(256)), "no model that is known", id="noise"),
        pytest.param(b"hello, world", "no model that is known", id="text"),
        pytest.param(b"def f(:\n", "no model that is known", id="broken Python"),
        pytest.param(add_one()[:-20], "no model that is known", id="half an ONNX model"),
    ],
)
def test_anything_else_is_refused_with_what_it_is(tmp_path: Path, content: bytes, says: str) -> None:
    failure = refusal(write(tmp_path, "model.onnx", content))
    assert failure.reason is Reason.UNSUPPORTED_FORMAT
    assert says in failure.message


def test_a_directory_is_python_when_it_has_sources_and_no_pickle(tmp_path: Path) -> None:
    write(tmp_path, "pkg/mod.py", SOURCE)
    write(tmp_path, "weights.npy", npy(np.ones(3)))
    assert detect(tmp_path) == "python"
    write(tmp_path, "weights.bin", PICKLES["gzip"]())
    assert refusal(tmp_path).reason is Reason.UNSAFE_FORMAT


def test_a_directory_without_sources_is_asked_to_name_its_model(tmp_path: Path) -> None:
    write(tmp_path, "a.onnx", add_one())
    write(tmp_path, "b.onnx", add_one())
    assert "name the one file" in refusal(tmp_path).message


def test_a_zip_of_very_many_files_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "m.zip", zipped({f"{number}": b"" for number in range(10_001)}))
    assert refusal(path).reason is Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("nested", [False, True], ids=["at the top", "within a subgraph"])
def test_external_data_is_found_wherever_a_tensor_may_be(tmp_path: Path, nested: bool) -> None:
    assert onnx_file.wants_external_data(write(tmp_path, "m", add_one(external=True, nested=nested)))
    assert not onnx_file.wants_external_data(write(tmp_path, "m", add_one(nested=nested)))


def test_external_data_is_found_in_an_attribute(tmp_path: Path) -> None:
    model = onnx.load_from_string(identity(onnx.TensorProto.FLOAT, [1]))
    tensor = onnx.helper.make_tensor("t", onnx.TensorProto.FLOAT, [1], [1.0])
    tensor.external_data.add(key="location", value="weights.bin")
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("value", tensor))
    assert onnx_file.wants_external_data(write(tmp_path, "m", model.SerializeToString()))


def test_a_damaged_model_is_read_to_its_damage_and_no_further(tmp_path: Path) -> None:
    """A file cut or changed anywhere is judged or refused; nothing else comes of it."""
    chance, good = random.Random(7), add_one(nested=True)  # noqa: S311 - it is for a test
    judged = Counter[bool | type[Exception]]()
    for _ in range(300):
        damaged = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path = write(tmp_path, "m", bytes(damaged[: chance.randint(1, len(damaged))]))
        try:
            judged[onnx_file.wants_external_data(path)] += 1
        except onnx_file.NotProtobufError as error:
            judged[type(error)] += 1
    assert judged.keys() >= {False, onnx_file.NotProtobufError}
    assert judged.total() == 300


def test_a_bomb_is_looked_into_without_being_unpacked(tmp_path: Path) -> None:
    bomb = write(tmp_path, "m", gzip.compress(gzip.compress(b"\0" * 50_000_000)))
    assert not pickles.is_pickle(bomb.read_bytes())
    assert refusal(bomb).reason is Reason.UNSUPPORTED_FORMAT
