"""A model that computes: it holds a CPU for a counted number of steps, about 500 milliseconds' worth by default.

INFLIGHT_EXAMPLE_STEPS says how many. Steps are counted, not timed, so that a busy machine makes it slower, not cheaper.
"""

import os


class Calculate:
    inputs = ({"name": "x", "datatype": "FP32", "shape": [-1, -1]},)
    outputs = ({"name": "sum", "datatype": "INT64", "shape": [1]},)

    def load(self, path):
        self.steps = int(os.environ.get("INFLIGHT_EXAMPLE_STEPS", "3000000"))

    def predict(self, inputs):
        total = 0
        for step in range(self.steps):
            total = (total * 31 + step) % 1_000_003
        return {"sum": [total]}
