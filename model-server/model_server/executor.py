"""Runs predictions off the event loop, on a fixed number of threads.

It knows nothing of requests, queues or deadlines. A call that has started can't be stopped: whoever submitted it is
told when it ends, however long that takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

Done = Callable[[Any, BaseException | None, float], None]
"""(result, error, seconds it ran): called on the event loop, exactly once."""


class Executor(Protocol):
    """Where predictions run."""

    def submit(self, work: Callable[[], Any], done: Done) -> None:
        """Run `work()` as soon as possible, then `done(...)` on the event loop."""


class ThreadExecutor:
    """`count` daemon threads, so that a prediction that never ends can't keep the process alive."""

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Done] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"prediction-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], Any], done: Done) -> None:
        """See Executor."""
        self._jobs.put((work, done))

    def stop(self) -> None:
        """Let the threads end once idle; predictions that still run are left alone."""
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            result: Any = None
            error: BaseException | None = None
            start = time.perf_counter()
            try:
                result = work()
            except BaseException as raised:
                error = raised
            seconds = time.perf_counter() - start
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(done, result, error, seconds)
            del job, work, done, result, error
