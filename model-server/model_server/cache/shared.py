"""Answers of other replicas, in a Valkey or Redis: asked for a few milliseconds, and never needed.

Whatever goes wrong there is a miss: an answer too late, no connection, a value that isn't ours. After some failures in
a row it isn't asked for a while. Requests never wait for a connection: two tasks of their own carry what is asked and
what is kept, all that has gathered in one go, so neither the number of connections nor of tasks grows with load.

Whoever can write to the server can author answers: give it a password, and no tenant another's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import structlog

from model_server.cache import values
from model_server.cache.circuit import Circuit
from model_server.cache.store import Kept
from model_server.cache.values import ForeignValueError
from model_server.errors import LoadFailure, Reason
from model_server.instruments import Counter

if TYPE_CHECKING:
    from valkey.asyncio import Valkey

LOOK_UP_SECONDS: Final = 0.005
"""That a request waits for an answer from here."""
_ROUND_SECONDS: Final = 1.0
"""For one exchange with the server, connecting included."""
_QUESTIONS: Final = 16
"""In one exchange."""
_ANSWERS: Final = 4
"""In one exchange, which keeps the event loop for as long as it takes to encode them."""
_MAX_PUTS: Final = 64
"""Values that wait to be sent; more are dropped."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    """An answer of another replica."""

    kept: Kept
    remaining: float
    """Seconds that it may still be used."""


class Asked:
    """One question; `found` is called once, with what was found in time, unless it was cancelled."""

    __slots__ = ("found", "key", "timer")

    def __init__(self, key: bytes, found: Callable[[Found | None], None]) -> None:
        self.key = key
        self.found: Callable[[Found | None], None] | None = found
        self.timer: asyncio.TimerHandle | None = None

    def answer(self, answer: Found | None) -> None:
        """Tell it, if somebody still wants to know."""
        found = self.found
        self.cancel()
        if found is not None:
            found(answer)

    def cancel(self) -> None:
        """See flight.Lookup."""
        self.found = None
        if self.timer is not None:
            self.timer.cancel()


class Shared:
    """One model's answers on one server; used from one event loop only."""

    def __init__(
        self, url: str, prefix: str, ttl: float, errors: Counter, *, patience: float = LOOK_UP_SECONDS
    ) -> None:
        """`prefix` of the keys there; `patience`: seconds that a question takes at most. It connects at once.

        LoadFailure when the client isn't installed.
        """
        self._loop = asyncio.get_running_loop()
        self._client = client(url)
        self._prefix = prefix.encode()
        self._ttl = ttl
        self._errors = errors
        self._patience = patience
        self._circuit = Circuit()
        self._questions: _Courier[Asked] = _Courier(self._ask, _QUESTIONS)
        self._answers: _Courier[tuple[bytes, Kept]] = _Courier(self._send, _ANSWERS)
        self._connecting = asyncio.create_task(self._exchanged(self._client.pipeline(transaction=False).ping()))

    def look_up(self, key: bytes, found: Callable[[Found | None], None]) -> Asked | None:
        """None: not now, the answer has to be computed. Otherwise `found` is called before patience ends."""
        now = self._loop.time()
        if not self._circuit.allows(now):
            return None
        self._circuit = self._circuit.asking(now)
        asked = Asked(key, found)
        asked.timer = self._loop.call_later(self._patience, self._late, asked)
        self._questions.carry(asked)
        return asked

    def put(self, key: bytes, kept: Kept) -> None:
        """Send an answer, some time; dropped when it is large, too many wait, or the server has been failing."""
        if kept.size <= values.MAX_BYTES and not self._circuit.broken and self._answers.waiting < _MAX_PUTS:
            self._answers.carry((key, kept))

    async def close(self) -> None:
        """Nothing is asked or sent any more."""
        self._connecting.cancel()
        await self._questions.stop()
        await self._answers.stop()
        with contextlib.suppress(Exception):
            await self._client.aclose()

    def _late(self, asked: Asked) -> None:
        self._failed("no answer in time")
        asked.answer(None)

    async def _ask(self, asked: Sequence[Asked]) -> None:
        wanted = [one for one in asked if one.found is not None]
        if not wanted:
            return
        pipeline = self._client.pipeline(transaction=False)
        for one in wanted:  # never more than a value may have, whatever lies there
            pipeline.getrange(self._prefix + one.key.hex().encode(), 0, values.MAX_BYTES)
            pipeline.pttl(self._prefix + one.key.hex().encode())
        replies = await self._exchanged(pipeline)
        for number, one in enumerate(wanted):
            if one.found is not None:
                one.answer(self._found(one.key, *replies[2 * number : 2 * number + 2]) if replies else None)

    def _found(self, key: bytes, value: Any, milliseconds: Any) -> Found | None:
        """What the server said, checked. An error reply, or a value that isn't ours, is counted and a miss."""
        if value == b"":
            return None
        try:
            if type(value) is not bytes or type(milliseconds) is not int:
                raise ForeignValueError
            kept = values.decode(key, value)
        except ForeignValueError:
            self._errors.inc()
            return None
        remaining = min(milliseconds / 1000, self._ttl)
        return Found(kept, remaining) if remaining > 0 else None

    async def _send(self, answers: Sequence[tuple[bytes, Kept]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for key, kept in answers:
            value = values.encode(key, kept.outputs)
            if value is not None:
                pipeline.set(self._prefix + key.hex().encode(), value, px=round(1000 * self._ttl))
        if len(pipeline):
            await self._exchanged(pipeline)

    async def _exchanged(self, pipeline: Any) -> list[Any] | None:
        """The replies; None if that failed. Whatever the client raises, nobody's prediction fails for it."""
        try:
            async with asyncio.timeout(_ROUND_SECONDS):
                replies: list[Any] = await pipeline.execute(raise_on_error=False)
        except Exception as error:
            self._failed(type(error).__name__)
            return None
        if all(isinstance(reply, Exception) for reply in replies):
            self._failed(type(replies[0]).__name__)
            return replies
        if self._circuit.broken:
            _log.info("the shared cache answers again")
        self._circuit = Circuit()
        return replies

    def _failed(self, why: str) -> None:
        self._errors.inc()
        was_broken = self._circuit.broken
        self._circuit = self._circuit.failed(self._loop.time())
        if self._circuit.broken and not was_broken:
            _log.warning("the shared cache fails: not asked for a while", why=why)


T = TypeVar("T")


class _Courier(Generic[T]):
    """Carries whatever has gathered, one exchange after the other; its task lives while there is something to carry."""

    def __init__(self, exchange: Callable[[Sequence[T]], Awaitable[None]], most: int) -> None:
        """`most`: in one exchange."""
        self._exchange = exchange
        self._most = most
        self._waiting: deque[T] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def carry(self, item: T) -> None:
        self._waiting.append(item)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        try:
            while self._waiting:
                count = min(self._most, len(self._waiting))
                await self._exchange([self._waiting.popleft() for _ in range(count)])
        finally:
            self._task = None


def client(url: str) -> Valkey:
    """Of the server at `url`: valkey, valkeys, redis or rediss. It connects when used, and never tries twice."""
    try:
        from valkey import asyncio as valkey  # noqa: PLC0415 - only who uses it pays for it
    except ImportError:
        text = "INFLIGHT_CACHE_URL needs the extra shared-cache: pip install 'inflight-model-server[shared-cache]'"
        raise LoadFailure(Reason.INVALID_SETTINGS, text) from None
    scheme, _, rest = url.partition("://")
    scheme = scheme.replace("rediss", "valkeys").replace("redis", "valkey")
    try:
        made: Valkey = valkey.Valkey.from_url(f"{scheme}://{rest}", lib_name=None, lib_version=None)
    except ValueError as error:
        raise LoadFailure(Reason.INVALID_SETTINGS, f"INFLIGHT_CACHE_URL: {error}") from None
    return made
