"""A model that waits: it answers its input after a time in which it uses no CPU.

INFLIGHT_EXAMPLE_WAIT_MS says how long, 100 milliseconds unless told otherwise.
"""

import os
import time


class Sleep:
    inputs = ({"name": "x", "datatype": "FP32", "shape": [-1, -1]},)
    outputs = ({"name": "x", "datatype": "FP32", "shape": [-1, -1]},)

    def load(self, path):
        self.seconds = int(os.environ.get("INFLIGHT_EXAMPLE_WAIT_MS", "100")) / 1000

    def predict(self, inputs):
        time.sleep(self.seconds)
        return {"x": inputs["x"]}
