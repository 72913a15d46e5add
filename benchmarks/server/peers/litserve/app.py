"""A LitAPI and a LitServer as LitServe's documentation writes them. `python app.py PORT`."""

import os
import sys

import litserve
import numpy as np
from works import BATCHING, DTYPE, IMAGE_SHAPE, WORK, load

BATCH_ROWS = 64
BATCH_SECONDS = 0.01


class Api(litserve.LitAPI):
    def setup(self, device):  # noqa: ARG002 (LitServe's signature)
        self.model = load()

    def decode_request(self, request):
        if WORK == "W4":
            return np.frombuffer(request["file"].file.read(), np.float32).reshape(IMAGE_SHAPE)
        return np.array(request["x"], DTYPE)

    def predict(self, x):
        return self.model.predict(x)

    def encode_response(self, output):
        return {"y": output.tolist()}


class BatchingApi(Api):
    def batch(self, inputs):
        return np.concatenate(inputs)

    def unbatch(self, output):
        return [output[row : row + 1] for row in range(len(output))]


if __name__ == "__main__":
    api = BatchingApi(max_batch_size=BATCH_ROWS, batch_timeout=BATCH_SECONDS) if BATCHING else Api()
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=2,
        restart_workers=True,
        timeout=float(os.environ["BENCH_TIMEOUT"]),
        fast_queue=os.environ.get("BENCH_FAST_QUEUE") == "1",
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
