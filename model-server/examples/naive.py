"""The usual way to serve a model, for comparison: a FastAPI handler that computes while its client waits.

It knows no limit: whoever comes is taken in, queues for the interpreter's lock, and is computed for even when it has
long gone away. Run it with `uvicorn naive:app` in this directory.
"""

import numpy as np
from calculate import Calculate
from fastapi import FastAPI

app = FastAPI()
model = Calculate()
model.load(".")


@app.post("/predict")
def predict(body: dict[str, list[list[float]]]) -> dict[str, list[int]]:
    return model.predict({"x": np.array(body["x"], np.float32)})
