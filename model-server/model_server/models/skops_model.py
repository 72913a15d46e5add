"""scikit-learn estimators saved by skops, with nothing in them but types that skops itself trusts."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from model_server.errors import Code, LoadFailure, Problem, Reason, first_line
from model_server.models.base import Metadata
from model_server.models.tensors import Array, Tensors, TensorSpec, datatype_of


class SkopsModel:
    """An estimator with `predict`; classifiers that can also answer `probabilities`."""

    computes_only = True

    def __init__(self, path: Path, threads: int, max_bytes: int) -> None:
        """Load `path`. LoadFailure: UnsafeFormat (types that aren't trusted), UnsupportedFormat, LoadFailed."""
        _check_size(path, max_bytes)
        self._estimator = _load(path)
        if not hasattr(self._estimator, "predict"):
            kind = type(self._estimator).__name__
            raise LoadFailure(Reason.UNSUPPORTED_FORMAT, f"{path.name} holds a {kind}, which has no predict method")
        self._probabilities = hasattr(self._estimator, "predict_proba")
        _limit_threads(threads)
        self.metadata = Metadata("scikit-learn")
        self.metadata = self._described()

    def predict(self, inputs: Tensors) -> Tensors:
        """See Model. The one input may have any name and any numeric type."""
        if len(inputs) != 1:
            raise Problem(Code.BAD_INPUT, f"the model takes one input, not {len(inputs)}")
        (rows,) = inputs.values()
        try:
            rows = _decoded(rows) if rows.dtype.kind == "O" else rows
            outputs = {"predictions": _plain(self._estimator.predict(rows))}
            if self._probabilities:
                outputs["probabilities"] = _plain(self._estimator.predict_proba(rows))
        except ValueError as error:
            raise Problem(Code.BAD_INPUT, f"the model can't take this input: {first_line(error)}") from error
        return outputs

    def _described(self) -> Metadata:
        """What it takes and answers, found out by asking it about one row of zeros."""
        features = getattr(self._estimator, "n_features_in_", None)
        if features is None:
            return self.metadata
        inputs = (TensorSpec("input", "FP64", (-1, int(features))),)
        try:
            answered = self.predict({"input": np.zeros((1, int(features)))})
        except (
            Exception
        ):  # zeros need not make sense to it (a pipeline of categories): it is served without outputs told
            return Metadata("scikit-learn", inputs, any_numeric=True)
        outputs = tuple(
            TensorSpec(name, datatype_of(array) or "BYTES", (-1, *array.shape[1:])) for name, array in answered.items()
        )
        return Metadata("scikit-learn", inputs, outputs, any_numeric=True)


def _check_size(path: Path, max_bytes: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise LoadFailure(Reason.UNSUPPORTED_FORMAT, f"{path.name} is no skops file: {first_line(error)}") from error
    if unpacked > max_bytes:
        raise LoadFailure(Reason.UNSAFE_FORMAT, f"{path.name} unpacks to {unpacked} bytes, more than {max_bytes}")


def _load(path: Path) -> Any:
    try:
        import skops.io  # noqa: PLC0415 - it imports scikit-learn, which costs a second and 100 MiB
    except ImportError as error:
        raise LoadFailure(
            Reason.UNSUPPORTED_FORMAT, "this image has no skops: install inflight-model-server[sklearn]"
        ) from error
    try:
        untrusted = skops.io.get_untrusted_types(file=path)
        if untrusted:
            raise LoadFailure(
                Reason.UNSAFE_FORMAT,
                f"{path.name} holds types that may run code: {', '.join(sorted(untrusted)[:20])}. "
                "Only scikit-learn's and numpy's own are loaded",
            )
        return skops.io.load(path, trusted=[])
    except LoadFailure:
        raise
    except Exception as error:  # a hostile or damaged file makes skops raise anything
        raise LoadFailure(Reason.LOAD_FAILED, f"skops can't load {path.name}: {first_line(error)}") from error


def _decoded(rows: Array) -> Array:
    """BYTES as the strings that vectorizers take."""
    texts = np.empty(rows.shape, object)
    texts.reshape(-1)[:] = [item.decode() for item in rows.reshape(-1)]
    return texts


def _plain(value: Any) -> Array:
    """scikit-learn's answer as an array of a type the protocol has; object labels are text."""
    array = np.asarray(value)
    return array.astype(str) if array.dtype.kind == "O" else array


def _limit_threads(threads: int) -> None:
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415 - scikit-learn's own

    threadpool_limits(threads)
