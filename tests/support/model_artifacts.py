"""Builders of model files for tests of the model server: good ones and hostile ones."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def add_one(*, external: bool = False, nested: bool = False) -> bytes:
    """ONNX: x FP32 [rows, 2] → y = x + 1. `external`: the 1 lies in another file, `nested`: within a subgraph."""
    one = numpy_helper.from_array(np.ones((1, 2), np.float32), "one")
    if external:
        one.ClearField("raw_data")
        one.data_location = TensorProto.EXTERNAL
        one.external_data.add(key="location", value="../../etc/passwd")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])
    if nested:
        inner = helper.make_graph(
            [helper.make_node("Add", ["x", "one"], ["y_in"])], "inner", [], [_like(y, "y_in")], [one]
        )
        condition = helper.make_node(
            "Constant", [], ["yes"], value=helper.make_tensor("v", TensorProto.BOOL, [], [True])
        )
        branch = helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)
        graph = helper.make_graph([condition, branch], "outer", [x], [y])
    else:
        graph = helper.make_graph([helper.make_node("Add", ["x", "one"], ["y"])], "add", [x], [y], [one])
    return _model(graph)


def identity(datatype: int, shape: list[Any], names: tuple[str, str] = ("x", "y")) -> bytes:
    """ONNX: the output is the input, of any type and shape."""
    inputs = [helper.make_tensor_value_info(names[0], datatype, shape)]
    outputs = [helper.make_tensor_value_info(names[1], datatype, shape)]
    return _model(helper.make_graph([helper.make_node("Identity", [names[0]], [names[1]])], "same", inputs, outputs))


def _like(value: Any, name: str) -> Any:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.name = name
    return copy


def _model(graph: Any) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


class Exploit:
    """Unpickling this would run a command."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What pickle writes down."""
        return (print, ("the pickle ran",))


def pickled(protocol: int = 4) -> bytes:
    """A pickle that calls a function."""
    return pickle.dumps(Exploit(), protocol)


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip of `files`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    """An .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


PICKLES: Mapping[str, Callable[[], bytes]] = {
    **{f"protocol {number}": lambda number=number: pickled(number) for number in range(6)},  # type: ignore[misc]
    "protocol 0, larger than a sample": lambda: pickle.dumps(list(range(20_000)), 0),
    "gzip": lambda: gzip.compress(pickled()),
    "gzip twice": lambda: gzip.compress(gzip.compress(pickled())),
    "gzip of protocol 0": lambda: gzip.compress(pickled(0)),
    "zlib (joblib)": lambda: zlib.compress(pickled()),
    "bz2 (joblib)": lambda: bz2.compress(pickled()),
    "xz (joblib)": lambda: lzma.compress(pickled()),
    "lzma (joblib)": lambda: lzma.compress(pickled(), lzma.FORMAT_ALONE),
    "a zip (torch)": lambda: zipped({"archive/data.pkl": pickled(2), "archive/version": b"3"}),
    "a zip, by content only": lambda: zipped({"weights": pickled()}),
    "a zip with skops' schema beside it": lambda: zipped({"schema.json": b"{}", "x.npy": pickled()}),
    "an npz of objects": lambda: zipped({"a.npy": npy(np.array([{}], object), allow_pickle=True)}),
    "an npy of objects": lambda: npy(np.array([{}], object), allow_pickle=True),
    "followed by a zip": lambda: pickled() + zipped({"schema.json": b"{}"}),
}
"""Every wrapping of a pickle that must be refused, by what it is."""


def write(directory: Path, name: str, content: bytes) -> Path:
    """A file, for use in one line."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
