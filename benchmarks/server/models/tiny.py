"""The ONNX models of W1, W4 and W5, made by code: the same file for every server. Run by the development Python."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES: Final = 4
CLASSES: Final = 3
IMAGE: Final = (3, 512, 512)
"""A float32 tensor of 3 MiB."""

_OPSET: Final = 17
_IR: Final = 8
Array = npt.NDArray[np.float32]


def weights() -> tuple[Array, Array]:
    """Of the tiny classifier: FEATURES x CLASSES, and one a class."""
    rng = np.random.default_rng(4)
    return rng.normal(size=(FEATURES, CLASSES)).astype(np.float32), rng.normal(size=CLASSES).astype(np.float32)


def classify(x: Array) -> Array:
    """What the tiny model answers, in numpy."""
    matrix, bias = weights()
    raw = np.exp(x @ matrix + bias)
    return np.asarray(raw / raw.sum(axis=1, keepdims=True), np.float32)


def write(directory: Path) -> None:
    """tiny.onnx: x [N, 4] → softmax(x W + b), y [N, 3]. image.onnx: x [N, 512, 512] → means, y [N]."""
    matrix, bias = weights()
    gemm = helper.make_node("Gemm", ["x", "matrix", "bias"], ["raw"])
    softmax = helper.make_node("Softmax", ["raw"], ["y"], axis=1)
    constants = [numpy_helper.from_array(matrix, "matrix"), numpy_helper.from_array(bias, "bias")]
    _save(directory / "tiny.onnx", [gemm, softmax], ["n", FEATURES], ["n", CLASSES], constants)
    mean = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)
    _save(directory / "image.onnx", [mean], ["n", *IMAGE[1:]], ["n"], [])


def _save(
    file: Path,
    nodes: list[onnx.NodeProto],
    taken: list[str | int],
    given: list[str | int],
    constants: list[onnx.TensorProto],
) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, taken)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, given)
    graph = helper.make_graph(nodes, file.stem, [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.checker.check_model(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(model.SerializeToString())
