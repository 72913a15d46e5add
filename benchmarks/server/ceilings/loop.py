"""What the hardware gives W2: one process that runs the model in a loop, and answers nobody, until it is stopped."""

import itertools

import numpy as np
from chain import Chain

model = Chain()
model.load("")
for number in itertools.count(1):
    model.predict({"x": np.array([[number, number]])})
