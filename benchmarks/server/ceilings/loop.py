"""What the hardware gives W2 and W3: one process that runs a model in a loop, and answers nobody, until it is stopped.

`python loop.py chain` or `python loop.py rows ROWS`.
"""

import itertools
import sys

import numpy as np


def chains():
    from chain import Chain  # noqa: PLC0415 (only what is measured)

    model = Chain()
    model.load("")
    for number in itertools.count(1):
        model.predict({"x": np.array([[number, number]])})


def batches(rows):
    from rows import FEATURES, Rows  # noqa: PLC0415

    model = Rows()
    model.load("")
    batch = np.ones((rows, FEATURES), np.float32)
    while True:
        model.predict({"x": batch})


if __name__ == "__main__":
    chains() if sys.argv[1] == "chain" else batches(int(sys.argv[2]))
