"""ONNX models on onnxruntime: only self-contained ones, and no operators from native libraries."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import structlog
from onnxruntime.capi import onnxruntime_pybind11_state as native

from model_server.errors import Code, LoadFailure, Problem, Reason, first_line
from model_server.models import onnx_file
from model_server.models.base import Metadata
from model_server.models.tensors import Array, Tensors, TensorSpec

_log = structlog.get_logger()

_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
_WARNING, _FATAL = 2, 4

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

    def __init__(self, path: Path, threads: int, device: str = "cpu") -> None:
        """Load `path`; a prediction uses `threads` threads, or the GPU where `device` is cuda and there is one.

        LoadFailure: UnsafeFormat, LoadFailed.
        """
        _refuse_external_data(path)
        on_gpu = _on_gpu(path, threads) if device == "cuda" else None
        self._session: Any = on_gpu or _session(path, threads, [_CPU])
        self.computes_only = on_gpu is None  # its thread waits for the GPU
        self.metadata = Metadata(
            "onnxruntime",
            tuple(_spec(node) for node in self._session.get_inputs()),
            tuple(_spec(node) for node in self._session.get_outputs()),
        )
        self._output_names = [spec.name for spec in self.metadata.outputs]
        # `InferenceSession.run` checks again what was checked here, for half the time of a small model: on the CPU
        # the native session under it is asked, where this version of onnxruntime has one.
        native_session = None if on_gpu else getattr(self._session, "_sess", None)
        self._run = getattr(native_session, "run", None) or self._session.run
        self._text_inputs = frozenset(spec.name for spec in self.metadata.inputs if spec.datatype == "BYTES")

    def predict(self, inputs: Tensors) -> Tensors:
        """See Model."""
        feeds = inputs
        if self._text_inputs:
            feeds = {
                name: _decoded(name, array) if name in self._text_inputs else array for name, array in inputs.items()
            }
        try:
            values = self._run(self._output_names, feeds, None)
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


def _on_gpu(path: Path, threads: int) -> Any:
    """A session on the GPU, or None: then one line in the log says why not."""
    if _CUDA not in onnxruntime.get_available_providers():
        return _no_gpu(f"the installed onnxruntime has no {_CUDA}: it takes the package onnxruntime-gpu")
    said = io.StringIO()
    onnxruntime.set_default_logger_severity(_FATAL)  # it has ten lines for what is one here
    try:
        with contextlib.redirect_stdout(said):
            onnxruntime.preload_dlls()  # CUDA's libraries, where they were installed as Python packages
        session = _session(path, threads, [_CUDA, _CPU])
    except LoadFailure as failure:
        return _no_gpu(failure.message)
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
    if _CUDA not in session.get_providers():
        missing = next(iter(said.getvalue().splitlines()), "no driver, or no device")[:300]
        return _no_gpu(f"CUDA did not start: {missing}")
    _log.info("predictions run on the GPU")
    return session


def _no_gpu(why: str) -> None:
    _log.warning("a GPU was asked for, but predictions run on the CPU", why=why)


def _session(path: Path, threads: int, providers: list[str]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A spinning thread pool would burn the pod's CPU quota between predictions.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # Which device to use instead is decided here, not by onnxruntime, which would tell standard output of it.
        return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
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


def _decoded(name: str, array: Array) -> Array:
    """BYTES as the strings that onnxruntime wants. Problem(bad_input)."""
    texts = np.empty(array.shape, object)
    try:
        texts.reshape(-1)[:] = [item.decode() for item in array.reshape(-1)]
    except UnicodeDecodeError as error:
        raise Problem(Code.BAD_INPUT, f"input {name!r} must be text in UTF-8: {error.reason}") from None
    return texts


def _output(value: Any, spec: TensorSpec) -> Array:
    """An output as an array; a ZipMap's rows {label: probability} become [rows, labels] in the model's label order."""
    if isinstance(value, np.ndarray):
        return value
    return _zipmap(value, "d" if spec.datatype == "FP64" else "f")


def _zipmap(rows: Sequence[dict[Any, float]], code: str) -> Array:
    labels = list(rows[0]) if rows else []
    return np.array([[row[label] for label in labels] for row in rows], code)
