"""Runs predictions: on a fixed number of threads, or on the event loop where a thread would cost more than the model.

It knows nothing of requests, queues or deadlines. A call that has started can't be stopped: whoever submitted it is
told when it ends, however long that takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final, Protocol

QUICK_SECONDS: Final = 0.0005
_UNKNOWN_SECONDS: Final = 0.005
"""Assumed at first: about 25 quick answers make it a quick model."""
_FORGETTING: Final = 0.9

Done = Callable[[Any, BaseException | None, float], None]
"""(result, error, seconds it ran): called on the event loop, exactly once."""


@dataclass(frozen=True, slots=True)
class Work:
    """One prediction. `size`: bytes of its input where time depends on that alone, None where it may wait or vary."""

    call: Callable[[], Any]
    size: int | None = None


class Executor(Protocol):
    """Where predictions run."""

    def submit(self, work: Work, done: Done) -> None:
        """Run `work.call()` as soon as possible, then `done(...)` on the event loop, perhaps before returning."""


class ThreadExecutor:
    """`count` daemon threads, so that a prediction that never ends can't keep the process alive."""

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"prediction-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work, done: Done) -> None:
        """See Executor."""
        self._jobs.put((work, done))

    def stop(self) -> None:
        """Let the threads end once idle; predictions that still run are left alone."""
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            outcome = _ran(work)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(done, *outcome)
            del job, work, done, outcome


class QuickExecutor:
    """Runs what has proved quick on the event loop, everything else on threads.

    Handing a prediction to a thread and back costs a tenth of a millisecond and more, several times what a small
    model takes; keeping the loop for half a millisecond costs nobody anything. Quick is only what has been measured
    again and again, at the same order of input size; one slow answer, and it is for the threads again for a while.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._slowest: dict[int, float] = {}
        """By the number of bits of the size: the longest time lately (s), forgotten a little with each call."""
        self._busy = False

    def submit(self, work: Work, done: Done) -> None:
        """See Executor."""
        if work.size is None:
            self._threads.submit(work, done)
            return
        bucket = work.size.bit_length()
        if not self._busy and self._slowest.get(bucket, _UNKNOWN_SECONDS) <= QUICK_SECONDS:
            self._busy = True  # what `done` starts goes to a thread: no recursion, and other requests get their turn
            try:
                result, error, seconds = _ran(work)
                self._learn(bucket, seconds)
                done(result, error, seconds)
            finally:
                self._busy = False
            return

        def learn_and_tell(result: Any, error: BaseException | None, seconds: float) -> None:
            self._learn(bucket, seconds)
            done(result, error, seconds)

        self._threads.submit(work, learn_and_tell)

    def _learn(self, bucket: int, seconds: float) -> None:
        faded = _FORGETTING * self._slowest.get(bucket, _UNKNOWN_SECONDS)
        self._slowest[bucket] = max(seconds, faded)


def _ran(work: Work) -> tuple[Any, BaseException | None, float]:
    """(result, error, seconds). A model may raise anything, SystemExit too: nothing of it may end a thread."""
    start = time.perf_counter()
    try:
        return work.call(), None, time.perf_counter() - start
    except BaseException as error:
        return None, error, time.perf_counter() - start
