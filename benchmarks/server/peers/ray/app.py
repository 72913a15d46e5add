"""A deployment of two replicas as Ray Serve's documentation writes them. `python app.py PORT TEMPORARY_DIRECTORY`."""

import os
import signal
import sys

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from works import BATCHING, DTYPE, IMAGE_SHAPE, WORK, load

BOUNDS = {"max_ongoing_requests": 1, "max_queued_requests": int(os.environ["BENCH_BOUND"])} if WORK == "W2" else {}
if BATCHING:
    BOUNDS = {"max_ongoing_requests": 64}
CPUS = {"num_cpus": 1}
QUIET = {"enable_access_log": False}


@serve.deployment(num_replicas=2, ray_actor_options=CPUS, logging_config=QUIET, **BOUNDS)
class Served:
    def __init__(self):
        self.model = load()

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.01)
    async def together(self, rows):
        return list(self.model.predict(np.concatenate(rows)))

    async def __call__(self, request: Request):
        if WORK == "W4":
            pixels = np.frombuffer(await request.body(), np.float32).reshape(IMAGE_SHAPE)
            return {"y": self.model.predict(pixels).tolist()}
        x = np.array((await request.json())["x"], DTYPE)
        if BATCHING:
            return {"y": [(await self.together(x)).tolist()]}
        return {"y": self.model.predict(x).tolist()}


if __name__ == "__main__":
    ray.init(
        num_cpus=2, include_dashboard=False, _temp_dir=sys.argv[2], log_to_driver=False, object_store_memory=256 * 2**20
    )
    http = {"host": "127.0.0.1", "port": int(sys.argv[1]), "request_timeout_s": float(os.environ["BENCH_TIMEOUT"])}
    serve.start(http_options=http, logging_config=QUIET)
    serve.run(Served.bind(), route_prefix="/predict")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
