"""When objects were first seen, from watch events: the clock of everything that a row waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from inflight_probe.kube import Kube, Object

Keys = Callable[[Object], Iterable[Hashable]]


class Arrivals:
    """First times (time.perf_counter) of keys, filled by watches or pollers."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, float] = {}
        self._news = asyncio.Event()

    def note(self, key: Hashable) -> None:
        """A key is there now; only its first time counts."""
        if key not in self._seen:
            self._seen[key] = time.perf_counter()
            self._news.set()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._seen

    async def all_of(self, keys: Iterable[Hashable], seconds: float) -> float:
        """The time at which the last of `keys` was first seen. TimeoutError names what is missing."""
        wanted = set(keys)
        try:
            async with asyncio.timeout(seconds):
                while not wanted <= self._seen.keys():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise TimeoutError(f"not seen within {seconds:.0f} s: {wanted - self._seen.keys()}") from None
        return max(self._seen[key] for key in wanted)


@asynccontextmanager
async def watching(kube: Kube, namespace: str, kinds: dict[str, Keys]) -> AsyncIterator[Arrivals]:
    """Note the keys of every object that is added or modified, by kind, while the block runs."""
    arrivals = Arrivals()

    async def read(events: AsyncIterator[Object], keys: Keys) -> None:
        async for event in events:
            if event["type"] in ("ADDED", "MODIFIED"):
                for key in keys(event["object"]):
                    arrivals.note(key)

    async with AsyncExitStack() as stack:
        tasks = []
        for kind, keys in kinds.items():
            events = await stack.enter_async_context(kube.watch(kind, namespace))
            tasks.append(asyncio.create_task(read(events, keys)))
        try:
            yield arrivals
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
