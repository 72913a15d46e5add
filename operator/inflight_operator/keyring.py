"""The keys by which tokens are checked, as they were read last: what can't be read anew stays as it was.

Each source (the cluster, or a URL) is read again and again by a task of its own, as long as some ModelDeployment needs
it, so that a slow one holds up nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

import structlog

from inflight_operator.api.jwks import Keys
from inflight_operator.api.names import Key
from inflight_operator.errors import TransientError

_log: Final = structlog.get_logger(__name__)

REFRESH_SECONDS: Final = 300.0
"""How soon a key that its issuer has added is known. Issuers show a new key long before they sign with it."""
FIRST_RETRY_SECONDS: Final = 5.0
AT_ONCE: Final = 16
"""Sources read at a time."""


def pause(failures: int) -> float:
    """Seconds until a source is read again, after so many failures one after the other."""
    return min(REFRESH_SECONDS, FIRST_RETRY_SECONDS * 2 ** (failures - 1)) if failures else REFRESH_SECONDS


class KeyRing:
    """Reads by `read`, and calls `changed` for each ModelDeployment that needs keys which are now others."""

    def __init__(self, read: Callable[[str], Awaitable[Keys]], changed: Callable[[Key], None]) -> None:
        self._read_source = read
        self._changed = changed
        self._needs: dict[Key, frozenset[str]] = {}
        self._known: dict[str, Keys] = {}
        self._problems: dict[str, str] = {}
        self._following: dict[str, asyncio.Task[None]] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._needs_changed = asyncio.Event()

    def need(self, key: Key, sources: frozenset[str]) -> None:
        """A ModelDeployment's tokens are checked by these sources' keys, and by no others."""
        if sources == self._needs.get(key, frozenset()):
            return
        if sources:
            self._needs[key] = sources
        else:
            del self._needs[key]
        self._needs_changed.set()

    def known(self, source: str) -> Keys | None:
        """The keys read last; None: none has ever been."""
        return self._known.get(source)

    def missing(self, sources: Iterable[str]) -> list[str]:
        """Why there are no keys, for each source without any."""
        return [self._problems.get(s, f"{s} has not been read yet") for s in sorted(sources) if s not in self._known]

    async def prime(self, sources: Collection[str], seconds: float) -> None:
        """Read these once, all at a time; what takes longer than `seconds` is left for later."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*map(self._read, sources))

    async def run(self) -> None:
        """Keep what is needed fresh, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._needs_changed.clear()
                needed = frozenset[str]().union(*self._needs.values())
                for source in needed - self._following.keys():
                    self._following[source] = group.create_task(self._follow(source))
                for source in self._following.keys() - needed:
                    self._following.pop(source).cancel()
                    self._known.pop(source, None)
                    self._problems.pop(source, None)
                await self._needs_changed.wait()

    async def _follow(self, source: str) -> None:
        failures = 0
        while True:
            failures = 0 if await self._read(source) else failures + 1
            await asyncio.sleep(pause(failures))

    async def _read(self, source: str) -> bool:
        before = self.known(source), self._problems.get(source)
        try:
            async with self._at_once:
                self._known[source] = await self._read_source(source)
            self._problems.pop(source, None)
        except TransientError as error:
            self._problems[source] = str(error)
            if before[1] is None:
                _log.warning("keys can't be read; the last known ones stay in force", source=source, error=str(error))
        if before != (self.known(source), self._problems.get(source)):
            for key, sources in self._needs.items():
                if source in sources:
                    self._changed(key)
        return source not in self._problems
