"""What the peers predict with: the benchmark's own model files, behind one call. BENCH_WORK says which."""

import os

import numpy as np

WORK = os.environ["BENCH_WORK"]


class OnnxFile:
    """A session with one thread: the workers share two cores."""

    def __init__(self, file):
        import onnxruntime  # noqa: PLC0415 (not every work needs it)

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def predict(self, x):
        return self._session.run(["y"], {"x": x})[0]


class PythonFile:
    """One of the benchmark's classes for Python models."""

    def __init__(self, found):
        self._model = found()
        if hasattr(found, "load"):
            self._model.load("")

    def predict(self, x):
        return self._model.predict({"x": x})["y"]


def load():
    """The model of this run: takes and gives one array."""
    if WORK == "W2":
        from chain import Chain  # noqa: PLC0415

        return PythonFile(Chain)
    if WORK == "crash":
        from fragile import Fragile  # noqa: PLC0415

        return PythonFile(Fragile)
    if WORK == "W3":
        from rows import Rows  # noqa: PLC0415

        return PythonFile(Rows)
    return OnnxFile(os.environ["BENCH_MODEL"])


BATCHING = WORK in ("W3", "crash")
DTYPE = np.int64 if WORK == "W2" else np.float32
IMAGE_SHAPE = (-1, 512, 512)
"""What the raw bytes of W4 are."""
