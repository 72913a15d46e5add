"""Load generators: an open loop (fixed rate) and a closed loop (fixed clients), both without retries.

They decide when to send and record what came back; they never repair, repeat or leave out a request: a lost
answer is an outcome too. The open loop counts a request's time from the moment it was due, so a stall of the
system under test (or of this client) is seen by every request it delayed, not by one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from inflight_probe.stats import percentile


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request came back with. `status` 0: no HTTP answer. `error` is empty for a right answer."""

    status: int
    error: str = ""
    variant: str = ""
    revision: str = ""
    answer: Any = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: its number, when it was due (s since the run began), how long its answer took (s)."""

    number: int
    due: float
    seconds: float
    reply: Reply

    @property
    def ok(self) -> bool:
        """A 200 with the right body."""
        return self.reply.status == 200 and not self.reply.error


Send = Callable[[int], Awaitable[Reply]]


@dataclass
class Run:
    """The outcomes of one run, with the counts that verdicts are made of."""

    outcomes: list[Outcome] = field(default_factory=list)
    elapsed: float = 0.0

    @property
    def ok(self) -> list[Outcome]:
        """The right answers."""
        return [o for o in self.outcomes if o.ok]

    @property
    def failed(self) -> list[Outcome]:
        """Everything else, refusals included."""
        return [o for o in self.outcomes if not o.ok]

    @property
    def refused(self) -> list[Outcome]:
        """Answered at once with "not now": 429 or 503."""
        return [o for o in self.outcomes if o.reply.status in (429, 503)]

    @property
    def rate(self) -> float:
        """Right answers per second."""
        return len(self.ok) / self.elapsed if self.elapsed else 0.0

    def milliseconds(self, q: float) -> float:
        """The q-th percentile of the right answers' times."""
        return 1000 * percentile((o.seconds for o in self.ok), q)

    def variants(self) -> Counter[str]:
        """Right answers by variant."""
        return Counter(o.reply.variant for o in self.ok)

    def why(self) -> Counter[str]:
        """Failures by status and reason, to be printed."""
        return Counter(f"{o.reply.status or 'no answer'} {o.reply.error}".strip() for o in self.failed)


async def _timed(send: Send, number: int, start: float, due: float) -> Outcome:
    reply = await send(number)
    return Outcome(number, due, time.perf_counter() - start - due, reply)


async def open_loop(send: Send, *, rate: float, count: int | None = None, stop: asyncio.Event | None = None) -> Run:
    """Send at `rate` requests/s, whatever comes back, until `count` are sent or `stop` is set.

    Raises what `send` raises: a sender turns the network's errors into a `Reply` with status 0.
    """
    run, start, pending = Run(), time.perf_counter(), set[asyncio.Task[Outcome]]()
    number = 0
    while (count is None or number < count) and not (stop is not None and stop.is_set()):
        due = number / rate
        await asyncio.sleep(max(start + due - time.perf_counter(), 0))
        task = asyncio.create_task(_timed(send, number, start, due))
        pending.add(task)
        number += 1
        if len(pending) > 64:
            pending = _collect(run.outcomes, pending)
    run.outcomes.extend(await asyncio.gather(*pending))
    run.outcomes.sort(key=lambda o: o.number)
    run.elapsed = time.perf_counter() - start
    return run


@asynccontextmanager
async def steady(send: Send, *, rate: float) -> AsyncIterator[Run]:
    """An open loop for as long as the block runs; the run is complete, every answer in, after the block."""
    stop, run = asyncio.Event(), Run()
    running = asyncio.create_task(open_loop(send, rate=rate, stop=stop))
    try:
        yield run
    finally:
        stop.set()
        done = await running
        run.outcomes, run.elapsed = done.outcomes, done.elapsed


def _collect(outcomes: list[Outcome], pending: set[asyncio.Task[Outcome]]) -> set[asyncio.Task[Outcome]]:
    done = {task for task in pending if task.done()}
    outcomes.extend(task.result() for task in done)
    return pending - done


async def closed_loop(
    send: Send,
    *,
    clients: int,
    count: int | None = None,
    seconds: float | None = None,
    pause: float = 0.0,
    seen: Callable[[Outcome], None] | None = None,
) -> Run:
    """`clients` that each send the next request as soon as the last is answered, for `count` or `seconds`.

    `pause` (s) is how long a client that was refused or failed waits before its next request.
    """
    if count is None and seconds is None:
        raise ValueError("closed_loop needs count or seconds, or it never ends")
    run, start, numbers = Run(), time.perf_counter(), _numbers(count)

    async def client() -> None:
        for number in numbers:
            due = time.perf_counter() - start
            if seconds is not None and due >= seconds:
                return
            outcome = await _timed(send, number, start, due)
            run.outcomes.append(outcome)
            if seen is not None:
                seen(outcome)
            if pause and not outcome.ok:
                await asyncio.sleep(pause)

    await asyncio.gather(*(client() for _ in range(clients)))
    run.outcomes.sort(key=lambda o: o.number)
    run.elapsed = time.perf_counter() - start
    return run


def _numbers(count: int | None) -> Iterable[int]:
    number = 0
    while count is None or number < count:
        yield number
        number += 1


def window(outcomes: Sequence[Outcome], start: float, end: float) -> Run:
    """The part of a run whose answers came in [start, end), as a run of its own."""
    inside = [o for o in outcomes if start <= o.due + o.seconds < end]
    return Run(inside, end - start)
