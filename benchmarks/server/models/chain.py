"""W2: a chain of sha256 that holds the interpreter's lock, as long as BENCH_CHAIN_STEPS says (counted, never timed).

Imports nothing of the benchmark, so that every server loads this very file. Each prediction appends one record to the
file BENCH_PREDICTIONS: what was computed, when, so that work for clients who had left can be counted from outside.
"""

import hashlib
import os
import struct
import time

import numpy as np

RECORD = struct.Struct("<qddq")
"""Who asked (the request's own number), start and end (seconds of the monotonic clock), rows."""


class Predictions:
    """Appends records from any thread or process: one write each, which the kernel keeps whole."""

    def __init__(self) -> None:
        path = os.environ.get("BENCH_PREDICTIONS")
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if path else None

    def note(self, identity: int, start: float, rows: int) -> None:
        if self._file is not None:
            os.write(self._file, RECORD.pack(identity, start, time.monotonic(), rows))


def chain(seed: int, steps: int) -> int:
    """The first 48 bits after `steps` links."""
    digest = seed.to_bytes(8, "little")
    for _ in range(steps):
        digest = hashlib.sha256(digest).digest()
    return int.from_bytes(digest[:6], "little")


class Chain:
    inputs = ({"name": "x", "datatype": "INT64", "shape": [-1, 2]},)
    outputs = ({"name": "y", "datatype": "INT64", "shape": [-1, 2]},)

    def load(self, _path: str) -> None:
        self._steps = int(os.environ["BENCH_CHAIN_STEPS"])
        self._predictions = Predictions()

    def predict(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rows of (seed, the request's number) → rows of (the chain's end, the same number)."""
        answers = []
        for seed, identity in inputs["x"].tolist():
            start = time.monotonic()
            answers.append((chain(seed, self._steps), identity))
            self._predictions.note(identity, start, 1)
        return {"y": np.array(answers, np.int64)}
