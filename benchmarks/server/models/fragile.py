"""The crash mix: a batching model in which some rows are poison and some end the process that computes them.

Rows of (kind, value): 0 is healthy, 1 raises ValueError, 2 kills the process as a segmentation fault would.
"""

import os
import signal

import numpy as np

HEALTHY, POISON, DEADLY = 0, 1, 2
_PASSES = 300
"""Over an array, for a few milliseconds a call: enough for others to wait and be put into one batch."""


class Fragile:
    inputs = ({"name": "x", "datatype": "FP32", "shape": [-1, 2]},)
    outputs = ({"name": "y", "datatype": "FP32", "shape": [-1, 1]},)

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Healthy rows → twice their value and one."""
        kinds, values = inputs["x"][:, 0], inputs["x"][:, 1:]
        constant = np.ones(65_536, np.float32)
        for _ in range(_PASSES):
            np.sqrt(constant, out=constant)
        if (kinds == DEADLY).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        if (kinds == POISON).any():
            raise ValueError("poison")
        return {"y": 2 * values + constant[0]}
