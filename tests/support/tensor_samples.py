"""Three values of every datatype, the extremes among them, for tests of what carries tensors."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from model_server.models.tensors import DATATYPES, Array

SAMPLES: Final[dict[str, list[Any]]] = {
    "BOOL": [True, False, True],
    "FP16": [0.5, -2.0, math.inf],
    "FP32": [0.1, -1e30, math.inf],
    "FP64": [0.1, -1e300, -math.inf],
    "BYTES": [b"", b"\x00\xff", "ä".encode()],
} | {
    name: [int(np.iinfo(dtype).min), 0, int(np.iinfo(dtype).max)]
    for name, dtype in DATATYPES.items()
    if dtype.kind in "iu"
}


def sample(datatype: str) -> Array:
    """Three rows of one."""
    array = np.empty(3, DATATYPES[datatype])
    array[:] = SAMPLES[datatype]
    return array.reshape(3, 1)
