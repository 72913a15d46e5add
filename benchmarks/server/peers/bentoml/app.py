"""A service as BentoML's documentation writes them: two workers, batching by `batchable`, bounds by `traffic`."""

import os
from pathlib import Path

import bentoml
import numpy as np
from works import BATCHING, DTYPE, IMAGE_SHAPE, WORK, load

TRAFFIC = {"timeout": float(os.environ["BENCH_TIMEOUT"])}
if WORK == "W2":
    TRAFFIC["max_concurrency"] = int(os.environ["BENCH_BOUND"])


@bentoml.service(workers=2, traffic=TRAFFIC, logging={"access": {"enabled": False}})
class Service:
    def __init__(self) -> None:
        self.model = load()

    if BATCHING:

        @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=2000)
        def infer(self, x: np.ndarray) -> np.ndarray:
            return self.model.predict(x.astype(DTYPE, copy=False))

    elif WORK == "W4":

        @bentoml.api
        def image(self, file: Path) -> np.ndarray:
            return self.model.predict(np.fromfile(file, np.float32).reshape(IMAGE_SHAPE))

    else:

        @bentoml.api
        def infer(self, x: np.ndarray) -> np.ndarray:
            return self.model.predict(x.astype(DTYPE, copy=False))
