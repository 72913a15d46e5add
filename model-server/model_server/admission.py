"""Who runs, who waits, who is refused: one bounded queue in front of `concurrency` slots.

In-flight is a set of open request ids, running and queued, so that no mix of errors, timeouts and departures can leave
it wrong. A prediction that runs can't be stopped: its slot stays held, and its id open, until it ends, also when its
client was answered 504 or has left. It knows no HTTP and no model.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from model_server.errors import Code, Problem
from model_server.executor import Executor, Work
from model_server.telemetry import Telemetry

_SMOOTHING: Final = 0.1
_UNMEASURED_SECONDS: Final = 1.0
"""Service time assumed until the first prediction was measured."""


class Ticket:
    """One admitted request."""

    __slots__ = ("answer", "arrived", "deadline", "number", "timer", "work")

    def __init__(self, number: int, work: Work, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        self.number = number
        self.work = work
        self.deadline = deadline
        self.arrived = time.monotonic()
        self.answer: asyncio.Future[Any] = loop.create_future()
        """The prediction, or the Problem that ended the wait for it."""
        self.timer: asyncio.TimerHandle | None = None


class Admission:
    """The queue of one server; used from one event loop only, on whose clock deadlines are."""

    def __init__(self, concurrency: int, max_queue: int, executor: Executor, telemetry: Telemetry) -> None:
        self._loop = asyncio.get_running_loop()
        self._concurrency = concurrency
        self._max_queue = max_queue
        self._executor = executor
        self._telemetry = telemetry
        self._numbers = itertools.count()
        self._open: set[int] = set()
        self._running: set[int] = set()
        self._waiting: dict[int, Ticket] = {}
        """In order of arrival."""
        self._service_seconds: float | None = None
        self._deviation_seconds = 0.0
        telemetry.watch(lambda: self.in_flight, lambda: self.queue_depth)

    @property
    def in_flight(self) -> int:
        """Requests running or queued."""
        return len(self._open)

    @property
    def queue_depth(self) -> int:
        """Requests queued."""
        return len(self._waiting)

    def check(self, deadline: float) -> None:
        """Raise the Problem that `enter` would raise now: cheap, before a body is read.

        A free slot is never refused for its measured service time: only by running can that be found to have changed.
        """
        if self._loop.time() >= deadline:
            self._telemetry.shed.labels("deadline").inc()
            raise Problem(Code.DEADLINE, "the deadline passed before the request could be queued")
        if len(self._running) >= self._concurrency and len(self._waiting) >= self._max_queue:
            self._telemetry.shed.labels("queue_full").inc()
            raise Problem(
                Code.QUEUE_FULL,
                f"{len(self._running)} predictions run and {len(self._waiting)} requests wait: no more are taken",
                retry_after_ms=self._retry_after_ms(),
            )
        expected = self._wait_seconds() + self._known_seconds
        if len(self._running) >= self._concurrency and expected > deadline - self._loop.time():
            raise self._too_late(f"an answer takes about {1000 * expected:.0f} ms now")

    async def run(self, work: Work, deadline: float, departure: Callable[[], Awaitable[None]]) -> Any:
        """The result of `work`, run when a slot is free.

        `deadline` is on the loop's clock. `departure()` returns when the client has left; it is awaited only where
        the request has to wait for its turn. Problem: queue_full, deadline, cancelled; and whatever `work` raises.
        """
        ticket = self.enter(work, deadline)
        watch: asyncio.Task[None] | None = None
        if ticket.number in self._waiting:
            watch = self._loop.create_task(self._watch(ticket, departure))
        try:
            return await ticket.answer
        finally:
            self.leave(ticket)
            if watch is not None:
                watch.cancel()

    def enter(self, work: Work, deadline: float) -> Ticket:
        """Admit a request: it starts at once or waits its turn. Raises Problem when it can do neither."""
        self.check(deadline)
        ticket = Ticket(next(self._numbers), work, deadline, self._loop)
        self._open.add(ticket.number)
        ticket.timer = self._loop.call_at(deadline, self._expire, ticket)
        if len(self._running) < self._concurrency:
            self._start(ticket)
        else:
            self._waiting[ticket.number] = ticket
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Nobody waits for `ticket` any more. A queued one is never computed; a running one ends by itself."""
        if ticket.timer is not None:
            ticket.timer.cancel()
        if not ticket.answer.cancel() and not ticket.answer.cancelled():
            ticket.answer.exception()  # looked at: nobody may be there to take it, and that is no error
        if self._waiting.pop(ticket.number, None) is not None:
            self._open.discard(ticket.number)

    async def _watch(self, ticket: Ticket, departure: Callable[[], Awaitable[None]]) -> None:
        await departure()
        self._end(ticket, Problem(Code.CANCELLED, "the client closed the connection"))

    def _expire(self, ticket: Ticket) -> None:
        if ticket.number in self._waiting:
            self._telemetry.shed.labels("deadline").inc()
            self._end(ticket, Problem(Code.DEADLINE, "the deadline passed while the request was queued"))
        else:
            self._end(ticket, Problem(Code.DEADLINE, "the deadline passed while the model was computing"))

    def _end(self, ticket: Ticket, problem: Problem) -> None:
        if not ticket.answer.done():
            ticket.answer.set_exception(problem)
        self.leave(ticket)

    def _start(self, ticket: Ticket) -> None:
        self._running.add(ticket.number)
        self._telemetry.queue_wait.observe(time.monotonic() - ticket.arrived)

        def done(result: Any, error: BaseException | None, seconds: float) -> None:
            try:
                self._measure(seconds)
                if not ticket.answer.done():
                    if error is None:
                        ticket.answer.set_result(result)
                    else:
                        ticket.answer.set_exception(_raisable(error))
            finally:
                self._running.discard(ticket.number)
                self._open.discard(ticket.number)
                self._start_next()

        self._executor.submit(ticket.work, done)

    def _start_next(self) -> None:
        now = self._loop.time()
        while self._waiting and len(self._running) < self._concurrency:
            ticket = self._waiting[next(iter(self._waiting))]
            # Its timer may be late on a busy loop; what is past its deadline is never computed.
            if ticket.deadline <= now:
                self._expire(ticket)
                continue
            # Too little time is left: computing it would only take the time of those behind it.
            if ticket.deadline - now < self._known_seconds:
                self._end(ticket, self._too_late(f"a prediction takes about {1000 * self._known_seconds:.0f} ms"))
                continue
            del self._waiting[ticket.number]
            self._start(ticket)

    def _too_late(self, why: str) -> Problem:
        self._telemetry.shed.labels("too_late").inc()
        text = f"{why}, which is more than the request's deadline allows"
        return Problem(Code.QUEUE_FULL, text, retry_after_ms=self._retry_after_ms())

    @property
    def _known_seconds(self) -> float:
        """Service time that few predictions exceed; 0 before the first, when nothing may be concluded from it."""
        return (self._service_seconds or 0.0) + 2 * self._deviation_seconds

    def _wait_seconds(self) -> float:
        """How long a request that arrives now waits for a slot: as if those that run had just begun."""
        ahead = len(self._open) - self._concurrency + 1
        return self._known_seconds * max(ahead, 0) / self._concurrency

    def _measure(self, seconds: float) -> None:
        self._telemetry.service.observe(seconds)
        mean = self._service_seconds
        if mean is None:
            self._service_seconds = seconds
            return
        self._deviation_seconds += _SMOOTHING * (abs(seconds - mean) - self._deviation_seconds)
        self._service_seconds = mean + _SMOOTHING * (seconds - mean)

    def _retry_after_ms(self) -> int:
        """Milliseconds until everything now ahead has run: measured service time x requests ahead / slots."""
        mean = _UNMEASURED_SECONDS if self._service_seconds is None else self._service_seconds
        return max(1, math.ceil(1000 * mean * len(self._open) / self._concurrency))


def _raisable(error: BaseException) -> Exception:
    """StopIteration can't be set on a future, SystemExit and friends must not reach the event loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the model raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped
