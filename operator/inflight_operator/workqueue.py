"""A keyed queue with delays: what client-go calls a rate-limited workqueue.

A key waits at most once, is worked on by one worker at a time, and one added while it is worked on comes again
after. A failing key backs off on its own: 0.5 s, doubled up to 30 s, without holding up the others.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from inflight_operator.tasks import go_on, lasting

K = TypeVar("K")
FIRST_BACKOFF: Final = 0.5
MAX_BACKOFF: Final = 30.0


class WorkQueue(Generic[K]):
    """Keys waiting to be worked on, each with the time (event-loop clock) before which it may not be."""

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0
        self._working: set[K] = set()
        self._again: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._changed = asyncio.Event()

    def add(self, key: K, after: float = 0.0) -> None:
        """Ask for `key` to be worked on in `after` seconds; sooner wins over what was asked before."""
        due = asyncio.get_running_loop().time() + after
        if key in self._working:
            self._again[key] = min(due, self._again.get(key, due))
            return
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, key))
        self._changed.set()

    async def run(self, work: Callable[[K], Awaitable[float | None]], workers: int) -> None:
        """Work for ever. `work` returns seconds until the key is due again, None for never, or raises to be retried."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(lasting("worker", self._worker(work)))

    async def _worker(self, work: Callable[[K], Awaitable[float | None]]) -> None:
        while True:
            go_on()
            key = await self._take()
            self._working.add(key)
            try:
                after = await work(key)
                self._failures.pop(key, None)
            except Exception:
                # `work` has told about it; here it only decides when to try again.
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                after = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(failures - 1, 16))
            finally:
                self._working.discard(key)
            again = self._again.pop(key, None)
            if again is not None:
                self.add(key, max(0.0, again - asyncio.get_running_loop().time()))
            if after is not None:
                self.add(key, after)

    async def _take(self) -> K:
        loop = asyncio.get_running_loop()
        while True:
            while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
                heapq.heappop(self._heap)  # replaced by a sooner one
            wait = self._heap[0][0] - loop.time() if self._heap else None
            if wait is not None and wait <= 0:
                key = heapq.heappop(self._heap)[2]
                del self._due[key]
                return key
            self._changed.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue
