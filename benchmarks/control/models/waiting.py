"""A model that waits 50 ms without using a CPU and answers what it was sent."""

import time


class Sleep:
    """`x` comes back as `y`."""

    def predict(self, inputs):
        time.sleep(0.05)
        return {"y": inputs["x"]}
