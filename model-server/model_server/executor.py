"""Runs predictions: on a fixed number of threads, or on the event loop where a thread would cost more than the model.

It knows nothing of requests, queues or deadlines. A call that has started can't be stopped: whoever submitted it is
told when it ends, however long that takes. Worker processes are an Executor too (model_server.workers).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Final, NamedTuple, Protocol

from model_server import logs
from model_server.models.tensors import Tensors

QUICK_SECONDS: Final = 0.0005
"""Of CPU: on a busy machine the time by the clock says more about the other threads than about the model."""
SLOW_SECONDS: Final = 0.01
"""By the clock, whatever it computed: it waits for something."""
_UNKNOWN: Final = 10.0
"""Slow answers assumed at first: about 20 quick ones make it a quick model."""
_TOLERATED: Final = 1.5
"""One slow answer, but not two of ten."""
_FORGETTING: Final = 0.9
_TURN_SECONDS: Final = 0.002
"""For what is queued, before whoever asks the event loop for something else has a turn."""


class Outcome(NamedTuple):
    """How a prediction ended: exactly one of `outputs` and `error`."""

    outputs: Tensors | None
    error: BaseException | None
    seconds: float
    """Time that the prediction itself took."""
    cpu_seconds: float = 0.0
    """Of that, what its thread computed; 0: not measured."""


Predict = Callable[[Tensors], Tensors]
Done = Callable[[Outcome], None]
"""Called on the event loop, exactly once, perhaps before `submit` returns."""


class Executor(Protocol):
    """Where predictions run."""

    @property
    def slots(self) -> int:
        """Predictions at once; no more are submitted."""

    def submit(self, inputs: Tensors, done: Done) -> None:
        """Predict as soon as possible, then `done(...)` on the event loop."""

    def stop(self) -> None:
        """Take no more work; what runs is left alone."""


class ThreadExecutor:
    """`slots` daemon threads, so that a prediction that never ends can't keep the process alive."""

    def __init__(self, predict: Predict, slots: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._predict = predict
        self._jobs: SimpleQueue[tuple[Tensors, Done, str] | None] = SimpleQueue()
        self.slots = slots
        for number in range(slots):
            threading.Thread(target=self._work, name=f"prediction-{number}", daemon=True).start()

    def submit(self, inputs: Tensors, done: Done) -> None:
        """See Executor."""
        self._jobs.put((inputs, done, logs.request_id.get("")))

    def stop(self) -> None:
        """See Executor."""
        for _ in range(self.slots):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            inputs, done, request_id = job
            logs.request_id.set(request_id)
            outcome = run(self._predict, inputs)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(done, outcome)
            del job, inputs, done, outcome


class QuickExecutor:
    """Runs what has proved quick on the event loop, everything else on threads.

    Handing a prediction to a thread and back costs a tenth of a millisecond and more, several times what a small
    model takes; keeping the loop for half a millisecond costs nobody anything. Quick is only what has been measured
    again and again, at the same order of input size. One slow answer may be the machine's fault; two in short order,
    and it is for the threads again for a while. Only for models whose time follows from the size of their input.
    """

    def __init__(self, predict: Predict, threads: Executor, slowness: Mapping[int, float] | None = None) -> None:
        """`slowness`: what another one has learnt of the same model."""
        self._predict = predict
        self._threads = threads
        self.slots = threads.slots
        self.slowness: dict[int, float] = dict(slowness or {})
        """By the number of bits of the size: slow answers lately, each forgotten a little with every call."""
        self._loop = asyncio.get_running_loop()
        self._pending: deque[tuple[Tensors, Done, int]] = deque()
        self._busy = False
        self.quick = 0
        """Predictions that ran on the event loop."""
        self.slow = 0
        """Predictions that ran on threads."""

    def submit(self, inputs: Tensors, done: Done) -> None:
        """See Executor."""
        size = 0
        for array in inputs.values():
            size += array.nbytes
        bucket = size.bit_length()
        if self.slowness.get(bucket, _UNKNOWN) <= _TOLERATED:
            self._pending.append((inputs, done, bucket))
            if not self._busy:
                self._run_pending()
            return

        self.slow += 1

        def learn_and_tell(outcome: Outcome) -> None:
            self._learn(bucket, outcome)
            done(outcome)

        self._threads.submit(inputs, learn_and_tell)

    def stop(self) -> None:
        """See Executor."""
        self._threads.stop()

    def _run_pending(self) -> None:
        """Here and now, one after the other: what `done` submits waits here for its turn, and is no recursion."""
        self._busy = True
        until = time.perf_counter() + _TURN_SECONDS
        try:
            while self._pending and time.perf_counter() < until:
                inputs, done, bucket = self._pending.popleft()
                self.quick += 1
                outcome = run(self._predict, inputs)
                self._learn(bucket, outcome)
                done(outcome)
        finally:
            self._busy = False
            if self._pending:
                self._loop.call_soon(self._run_pending)

    def _learn(self, bucket: int, outcome: Outcome) -> None:
        slow = outcome.cpu_seconds > QUICK_SECONDS or outcome.seconds > SLOW_SECONDS
        self.slowness[bucket] = _FORGETTING * self.slowness.get(bucket, _UNKNOWN) + slow


def run(predict: Predict, inputs: Tensors) -> Outcome:
    """Predict here and now. A model may raise anything, SystemExit too: nothing of it may end a thread."""
    start, computed = time.perf_counter(), time.thread_time()
    outputs: Tensors | None = None
    failure: BaseException | None = None
    try:
        outputs = predict(inputs)
    except BaseException as error:
        failure = error
    return Outcome(outputs, failure, time.perf_counter() - start, time.thread_time() - computed)
