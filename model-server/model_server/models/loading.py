"""From what lies on disk to a warm model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

import numpy as np

from model_server.errors import LoadFailure, Problem, Reason, first_line
from model_server.models.base import Model
from model_server.models.detect import detect
from model_server.models.tensors import DATATYPES, Array, TensorSpec

_MAX_WARM_UP_ELEMENTS: Final = 2**24


def load(path: Path, wanted: str, entrypoint: str, threads: int, max_bytes: int, *, device: str = "cpu") -> Model:
    """The model at `path`, a file or a directory. `wanted` is a format or auto. LoadFailure says why not.

    `device` cuda is for ONNX; scikit-learn has no use for a GPU, and Python code uses it as it likes.
    """
    found = detect(path)
    if wanted not in ("auto", found):
        raise LoadFailure(Reason.UNSUPPORTED_FORMAT, f"{path.name} is {found} by its content, not {wanted}")
    if found == "python":
        if wanted == "auto" and not entrypoint:
            raise LoadFailure(
                Reason.UNSAFE_FORMAT,
                f"{path.name} is Python source, which is run only when asked for: set format python or an entrypoint",
            )
        from model_server.models.python_model import PythonModel  # noqa: PLC0415 - each format imports only its own

        return PythonModel(path, entrypoint)
    if found == "skops":
        from model_server.models.skops_model import SkopsModel  # noqa: PLC0415

        return SkopsModel(path, threads, max_bytes)
    from model_server.models.onnx_model import OnnxModel  # noqa: PLC0415

    return OnnxModel(path, threads, device)


def warm_up(model: Model) -> str:
    """One prediction of zeros, so that the first client doesn't pay for lazy set-up; what came of it, in words.

    Zeros need not be a sensible input, so a model that refuses them is served all the same.
    """
    inputs = model.metadata.inputs
    if not inputs or any(spec.datatype == "BYTES" for spec in inputs):
        return "skipped: the model declares no numeric inputs"
    if sum(math.prod(_concrete(spec)) for spec in inputs) > _MAX_WARM_UP_ELEMENTS:
        return "skipped: the inputs are too large"
    try:
        model.predict({spec.name: _zeros(spec) for spec in inputs})
    except Problem as problem:
        return f"the model refused zeros: {problem.detail}"
    except Exception as error:
        return f"the model failed on zeros: {first_line(error)}"
    return "done"


def _concrete(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(1 if size < 0 else size for size in spec.shape)


def _zeros(spec: TensorSpec) -> Array:
    return np.zeros(_concrete(spec), DATATYPES[spec.datatype])
