"""Tensors as the Open Inference Protocol names them, and what they are in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]

DATATYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
"""BYTES is an object array of `bytes`. BF16 has no numpy type: it is not served, send FP32."""

_NAMES: Final = {dtype: name for name, dtype in DATATYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its datatype, and its shape with -1 for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of `shape` fits."""
        if len(shape) != len(self.shape):
            return False
        for want, have in zip(self.shape, shape):  # noqa: B905, SIM110 - twice as fast
            if want != -1 and want != have:  # noqa: PLR1714
                return False
        return True


def datatype_of(array: Array) -> str | None:
    """The protocol's name of an array's type; None where it has none (complex, dates)."""
    return _NAMES.get(array.dtype) or ("BYTES" if array.dtype.kind in "SU" else None)
