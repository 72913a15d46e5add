"""The handler that FastAPI's tutorial leads to: `def`, so that it runs on a thread, and a response model.

Run with `uvicorn app:app`, and with `--workers 2` as its page on deployment says.
"""

import numpy as np
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from works import DTYPE, IMAGE_SHAPE, load

app = FastAPI()
model = load()


class Question(BaseModel):
    x: list[list[float]]


class Reply(BaseModel):
    y: list[list[float]]


@app.post("/predict")
def predict(question: Question) -> Reply:
    return Reply(y=model.predict(np.array(question.x, DTYPE)).tolist())


@app.post("/image")
async def image(request: Request) -> dict[str, list[float]]:
    pixels = np.frombuffer(await request.body(), np.float32).reshape(IMAGE_SHAPE)
    return {"y": (await run_in_threadpool(model.predict, pixels)).tolist()}
