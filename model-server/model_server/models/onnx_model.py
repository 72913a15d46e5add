"""ONNX models on onnxruntime: only self-contained ones, and no operators from native libraries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from model_server.errors import Code, LoadFailure, Problem, Reason, first_line
from model_server.models import onnx_file
from model_server.models.base import Metadata
from model_server.models.tensors import Array, Tensors, TensorSpec

_DATATYPES: Final = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_ZIPMAPS: Final = {
    "seq(map(int64,tensor(float)))": "FP32",
    "seq(map(string,tensor(float)))": "FP32",
    "seq(map(int64,tensor(double)))": "FP64",
    "seq(map(string,tensor(double)))": "FP64",
}


class OnnxModel:
    """One onnxruntime session, which may run from several threads at once."""

    computes_only = True

    def __init__(self, path: Path, threads: int) -> None:
        """Load `path`; a prediction uses `threads` threads. LoadFailure: UnsafeFormat, LoadFailed."""
        _refuse_external_data(path)
        self._session = _session(path, threads)
        self.metadata = Metadata(
            "onnxruntime",
            tuple(_spec(node) for node in self._session.get_inputs()),
            tuple(_spec(node) for node in self._session.get_outputs()),
        )
        self._output_names = [spec.name for spec in self.metadata.outputs]
        self._text_inputs = frozenset(spec.name for spec in self.metadata.inputs if spec.datatype == "BYTES")

    def predict(self, inputs: Tensors) -> Tensors:
        """See Model."""
        feeds = inputs
        if self._text_inputs:
            feeds = {name: _decoded(array) if name in self._text_inputs else array for name, array in inputs.items()}
        try:
            values = self._session.run(self._output_names, feeds)
        except (native.InvalidArgument, native.InvalidGraph) as error:
            raise Problem(Code.BAD_INPUT, f"the model can't take this input: {first_line(error)}") from error
        return {spec.name: _output(value, spec) for spec, value in zip(self.metadata.outputs, values, strict=True)}


def _refuse_external_data(path: Path) -> None:
    try:
        external = onnx_file.wants_external_data(path)
    except onnx_file.NotProtobufError:
        raise LoadFailure(Reason.UNSUPPORTED_FORMAT, f"{path.name} is no ONNX model, or a damaged one") from None
    if external:
        raise LoadFailure(
            Reason.UNSAFE_FORMAT,
            f"{path.name} keeps tensors in other files, which could be any file of this pod; "
            "save the model with its data inside",
        )


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A spinning thread pool would burn the pod's CPU quota between predictions.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        text = first_line(error).replace(str(path), path.name)
        raise LoadFailure(Reason.LOAD_FAILED, f"onnxruntime can't load {path.name}: {text}") from error


def _spec(node: Any) -> TensorSpec:
    if node.type in _ZIPMAPS:
        return TensorSpec(node.name, _ZIPMAPS[node.type], (-1, -1))
    if node.type not in _DATATYPES:
        raise LoadFailure(
            Reason.UNSUPPORTED_FORMAT, f"the model's {node.name!r} is {node.type}, only tensors are served"
        )
    shape = tuple(size if isinstance(size, int) and size > 0 else -1 for size in node.shape)
    return TensorSpec(node.name, _DATATYPES[node.type], shape)


def _decoded(array: Array) -> Array:
    """BYTES as the strings that onnxruntime wants."""
    texts = np.empty(array.shape, object)
    texts.reshape(-1)[:] = [item.decode() for item in array.reshape(-1)]
    return texts


def _output(value: Any, spec: TensorSpec) -> Array:
    """An output as an array; a ZipMap's rows {label: probability} become [rows, labels] in the model's label order."""
    if isinstance(value, np.ndarray):
        return value
    return _zipmap(value, "d" if spec.datatype == "FP64" else "f")


def _zipmap(rows: Sequence[dict[Any, float]], code: str) -> Array:
    labels = list(rows[0]) if rows else []
    return np.array([[row[label] for label in labels] for row in rows], code)
