"""Who runs, who waits, who is refused: one bounded queue in front of the executor's slots.

In-flight is a set of open request numbers, running and queued, so that no mix of errors, timeouts and departures can
leave it wrong. A prediction that runs can't be stopped: its slot stays held, and its request open, until it ends, also
when its client was answered 504 or has left. It knows no HTTP and no model; what to do is decided in `decide`.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from model_server import batching, logs
from model_server.decide import admission, batch_plan, standing
from model_server.decide.admission import Load, Refusal, Refused
from model_server.decide.batch_plan import NO_BATCHING, Limits, Traffic
from model_server.decide.service_time import ServiceTime
from model_server.errors import Code, Problem
from model_server.executor import Executor, Outcome
from model_server.models.tensors import Tensors
from model_server.promises import Promises
from model_server.queues import Done, Item, Priority, Queues, Ticket
from model_server.telemetry import Telemetry

_log = structlog.get_logger()

_SMOOTHING: Final = 0.2


@dataclass(slots=True, eq=False)
class _Batch:
    items: Sequence[Item]
    rows: int
    started: float


class Dispatcher:
    """The queue of one server; used from one event loop only, on whose clock deadlines are."""

    def __init__(
        self,
        executor: Executor,
        max_queue: int,
        telemetry: Telemetry,
        limits: Limits = NO_BATCHING,
        patience: float = 10.0,
    ) -> None:
        """`max_queue`: requests that may wait. `limits` other than NO_BATCHING need a model that works row by row.

        `patience`: seconds that a request may take at most.
        """
        self._loop = asyncio.get_running_loop()
        self._executor = executor
        self._slots = executor.slots
        self._max_queue = max_queue
        self._telemetry = telemetry
        self._limits = limits
        self._patience = patience
        self._numbers = itertools.count()
        self._open: set[int] = set()
        self._running: set[_Batch] = set()
        self._waiting = Queues()
        self._retries: deque[list[Item]] = deque()
        """Parts of batches that failed, to be run before anything else."""
        self._gathering: asyncio.TimerHandle | None = None
        self._free_since = 0.0
        self._crowd = 0.0
        """Requests in flight when a batch ends and its clients are about to ask again, smoothed."""
        self._standing = standing.CALM
        self._let_in: tuple[object, ...] = ()
        """What was asked when `check` last said yes: a small body comes with its head, and is asked the same again."""
        self._promises = Promises()
        self._service = ServiceTime()
        telemetry.watch(lambda: self.in_flight, lambda: self.queue_depth)

    @property
    def in_flight(self) -> int:
        """Requests running or queued."""
        return len(self._open)

    @property
    def queue_depth(self) -> int:
        """Predictions queued."""
        return self._waiting.length

    @property
    def _free(self) -> bool:
        return len(self._running) < self._slots

    @property
    def _idle(self) -> bool:
        """A slot is free and nobody waits for it."""
        return len(self._running) < self._slots and not self._waiting.length

    def hangs(self, seconds: float) -> bool:
        """Whether every slot has been computing for longer than `seconds`: then nothing more will come of it."""
        begun = self._loop.time() - seconds
        return not self._free and all(batch.started < begun for batch in self._running)

    def resize(self, slots: int, max_queue: int) -> None:
        """Use so many of the executor's slots, and let so many requests wait, from now on."""
        self._slots = min(slots, self._executor.slots)
        self._max_queue = max_queue
        self._fill()

    def check(self, deadline: float, priority: Priority = Priority.NORMAL, rows: int = 1) -> None:
        """Raise the Problem that `enter` would raise now: cheap, before a body is read.

        A free slot is never refused for its measured service time: only by running can that be found to have changed.
        """
        now = self._loop.time()
        if now >= deadline:
            self._telemetry.shed.labels("deadline").inc()
            raise Problem(Code.DEADLINE, "the deadline passed before the request could be queued")
        if self._idle:
            return
        asked = (now, deadline, priority, rows, len(self._open), len(self._running))
        if asked == self._let_in:
            return
        load = self._load(priority, now)
        refused = admission.decide(load, rows, deadline - now, self._service)
        if refused and not (refused.why is Refusal.QUEUE_FULL and self._waiting.youngest_below(priority)):
            raise self._refusal(refused, load, now)
        self._let_in = asked

    def enter(self, inputs: Tensors, deadline: float, priority: Priority, done: Done) -> Ticket:
        """Admit a request: it starts at once or waits its turn. Raises Problem when it can do neither.

        `deadline` is on the loop's clock. `done` gets Problem(queue_full, deadline) or whatever the model raised.
        """
        limits, now = self._limits, self._loop.time()
        rows = batching.rows_of(inputs) if limits.max_rows > 1 else 0
        # The short way, for what would run at once and alone: nothing to queue, nothing to decide.
        alone = not rows or (rows <= limits.max_rows and not limits.max_delay and self._crowd < 2 * self._slots)
        at_once = alone and self._idle and now < deadline
        if not at_once:
            self.check(deadline, priority, max(1, rows))
        ticket = Ticket(next(self._numbers), now, deadline, priority, done)
        self._open.add(ticket.number)
        if at_once:
            self._start(ticket, inputs, rows)
        else:
            self._make_room(priority)
            self._queue(ticket, inputs, rows)
            self._fill()
        if ticket.open_items:  # a quick model has answered by now
            ticket.timer = self._loop.call_at(deadline, self._expire, ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Nobody waits for `ticket` any more. What is queued of it is never computed; what runs ends by itself."""
        ticket.done = None
        if ticket.timer is not None:
            ticket.timer.cancel()
        if ticket.open_items and self._waiting.length:
            for item in self._waiting.of(ticket):
                self._waiting.remove(item)
                self._close(item)

    def waits(self, ticket: Ticket) -> bool:
        """Whether nothing has been computed of some of `ticket` yet, as it is queued."""
        return bool(self._waiting.of(ticket))

    def wanted(self, ticket: Ticket, deadline: float, priority: Priority) -> None:
        """Others wait for `ticket` now (see model_server.cache): its deadline and its priority become theirs."""
        if ticket.done is None or not ticket.open_items:
            return
        if ticket.timer is not None and deadline != ticket.deadline:
            ticket.timer.cancel()
            ticket.timer = self._loop.call_at(deadline, self._expire, ticket)
        ticket.deadline = deadline
        if priority is not ticket.priority:
            self._waiting.move(ticket, priority)

    def _start(self, ticket: Ticket, inputs: Tensors, rows: int) -> None:
        """Run it now."""
        self._telemetry.queue_wait.observe(0.0)
        self._standing = standing.CALM
        signature = batching.signature_of(inputs) if rows else None
        self._run((Item(ticket, inputs, max(1, rows), signature, 0),))

    def _queue(self, ticket: Ticket, inputs: Tensors, rows: int) -> None:
        signature = batching.signature_of(inputs) if rows else None
        pieces = batching.split(inputs, self._limits.max_rows) if rows > self._limits.max_rows else [inputs]
        ticket.open_items = len(pieces)
        ticket.parts = [None] * len(pieces)
        for part, piece in enumerate(pieces):
            self._waiting.add(Item(ticket, piece, max(1, batching.rows_of(piece)) if rows else 1, signature, part))

    def _make_room(self, priority: Priority) -> None:
        if self._free or self._waiting.length < self._max_queue:
            return
        if victim := self._waiting.youngest_below(priority):
            self._telemetry.shed.labels("displaced").inc()
            self._refuse(victim.ticket, "a request of a higher priority took its place in the queue")

    def _fill(self) -> None:
        """Give every free slot what it should run next."""
        while self._free and (self._retries or self._waiting.length):
            if self._retries:
                if items := [item for item in self._retries.popleft() if self._wanted(item)]:
                    self._run_logged(items)
                continue
            now = self._loop.time()
            share = self._crowd / self._slots
            traffic = Traffic(probe=not self._running, share=share, free_since=self._free_since)
            plan = batch_plan.plan(self._waiting.in_turn(), now, self._limits, self._service, traffic)
            for item in plan.expired:
                self._expire(item.ticket)
            for item in plan.hopeless:
                self._telemetry.shed.labels(Refusal.TOO_LATE.value).inc()
                self._refuse(item.ticket, _too_late(self._service.at_most(item.rows)))
            if plan.look_again is not None:
                self._look_again(plan.look_again)
                return
            if plan.run:
                self._taken(plan.run, now)
                self._run_logged(plan.run)

    def _taken(self, items: Sequence[Item], now: float) -> None:
        """`items` leave the queue."""
        self._waiting.started()
        rows, bounds = 0, self._bounds(0)
        for item in items:
            self._waiting.remove(item)
            waited = now - item.arrived
            self._telemetry.queue_wait.observe(waited)
            if item.rows != rows:
                rows, bounds = item.rows, self._bounds(item.rows)
            self._standing = self._standing.after(waited, now, bounds)

    def _look_again(self, at: float) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
        self._gathering = self._loop.call_at(at, self._fill)

    def _run_logged(self, items: Sequence[Item]) -> None:
        """Run what waited: it isn't the request whose callback this is that log lines are about."""
        token = logs.request_id.set(items[0].ticket.request_id if len(items) == 1 else "")
        try:
            self._run(items)
        finally:
            logs.request_id.reset(token)

    def _run(self, items: Sequence[Item]) -> None:
        if len(items) == 1:
            rows, inputs = items[0].rows, items[0].inputs
        else:
            rows, inputs = sum([item.rows for item in items]), batching.joined([item.inputs for item in items])
        batch = _Batch(items, rows, self._loop.time())
        self._running.add(batch)
        started = time.monotonic()
        for item in items:
            item.ticket.started = started
        self._executor.submit(inputs, lambda outcome: self._ended(batch, outcome))

    def _ended(self, batch: _Batch, outcome: Outcome) -> None:
        self._running.discard(batch)
        self._free_since = self._loop.time()
        self._crowd += _SMOOTHING * (len(self._open) - self._crowd)
        self._service.observe(batch.rows, outcome.seconds)
        self._telemetry.ran(batch.rows, outcome.seconds)
        try:
            if outcome.outputs is None:
                self._failed(batch.items, _raisable(outcome.error))
            elif len(batch.items) == 1:
                self._answered(batch.items[0], outcome.outputs)
            else:
                self._shared_out(batch.items, outcome.outputs)
        finally:
            self._fill()

    def _shared_out(self, items: Sequence[Item], outputs: Tensors) -> None:
        try:
            parts = batching.apart(outputs, [item.rows for item in items])
        except batching.NotRowwiseError:
            _log.error("the model's outputs don't have a row for each row of its inputs: no batches from now on")
            self._limits = NO_BATCHING
            self._retries.extend([item] for item in items)
            return
        for item, part in zip(items, parts, strict=True):
            self._answered(item, part)

    def _failed(self, items: Sequence[Item], error: Exception) -> None:
        """One poisoned row fails a whole batch: halve it until that row is alone, log2 n times at most."""
        if len(items) == 1:
            self._close(items[0])
            self._end(items[0].ticket, error)
            return
        middle = len(items) // 2
        self._retries.extendleft((list(items[middle:]), list(items[:middle])))

    def _wanted(self, item: Item) -> bool:
        """Whether a part of a failed batch is still to be run again."""
        if item.ticket.done is not None and item.deadline > self._loop.time():
            return True
        self._close(item)
        self._expire(item.ticket)
        return False

    def _answered(self, item: Item, outputs: Tensors) -> None:
        ticket = item.ticket
        ticket.parts[item.part] = outputs
        self._close(item)
        if ticket.open_items or ticket.done is None:
            return
        if ticket.timer is not None:
            ticket.timer.cancel()
        done, ticket.done = ticket.done, None
        parts = [part for part in ticket.parts if part is not None]
        done(batching.joined(parts), None)

    def _close(self, item: Item) -> None:
        """`item` neither runs nor waits any more."""
        ticket = item.ticket
        ticket.open_items -= 1
        if not ticket.open_items:
            self._open.discard(ticket.number)

    def _end(self, ticket: Ticket, error: BaseException) -> None:
        """Answer with an error, if anybody still waits."""
        done = ticket.done
        self.leave(ticket)
        if done is not None:
            done(None, error)

    def _expire(self, ticket: Ticket) -> None:
        doing = "while the model was computing"
        if self._waiting.of(ticket):
            doing = "while the request was queued"
            self._telemetry.shed.labels("deadline").inc()
        self._end(ticket, Problem(Code.DEADLINE, f"the deadline passed {doing}"))

    def _bounds(self, rows: int) -> standing.Bounds:
        return standing.bounds(self._service.expect(rows), self._patience)

    def _load(self, priority: Priority, now: float) -> Load:
        at_most = self._service.at_most
        remaining = [max(0.0, at_most(batch.rows) - (now - batch.started)) for batch in self._running]
        ahead, rows_ahead = self._waiting.ahead_of(priority)
        return Load(
            remaining=remaining + [0.0] * (self._slots - len(remaining)),
            waiting=self._waiting.length,
            max_queue=self._max_queue,
            ahead=ahead,
            rows_ahead=rows_ahead,
            max_rows=self._limits.max_rows,
            longest_wait=self._longest_wait(now),
        )

    def _longest_wait(self, now: float) -> float:
        return math.inf if self._standing is standing.CALM else self._standing.longest_wait(now, self._bounds(1))

    def _refusal(self, refused: Refused, load: Load, now: float) -> Problem:
        self._telemetry.shed.labels(refused.why.value).inc()
        if refused.why is Refusal.QUEUE_FULL:
            text = f"{len(self._running)} predictions run and {load.waiting} requests wait: no more are taken"
        elif refused.why is Refusal.STANDING:
            text = f"the queue has been long for a while: an answer takes about {1000 * refused.seconds:.0f} ms now"
        else:
            text = _too_late(refused.seconds)
        return self._come_back(text, load, now)

    def _refuse(self, ticket: Ticket, text: str) -> None:
        """Refuse what was queued. Of what has begun in part nothing says that it can be asked for elsewhere."""
        now = self._loop.time()
        problem = self._come_back(text, self._load(ticket.priority, now), now)
        self._end(ticket, Problem(problem.code, problem.detail) if ticket.started else problem)

    def _come_back(self, text: str, load: Load, now: float) -> Problem:
        seconds = admission.retry_after(load, self._promises.pending(now), self._service)
        self._promises.add(now + seconds)
        return Problem(Code.QUEUE_FULL, text, retry_after_ms=max(1, round(1000 * seconds)))


def _too_late(seconds: float) -> str:
    return f"an answer takes about {1000 * seconds:.0f} ms now, which is more than the request's deadline allows"


def _raisable(error: BaseException | None) -> Exception:
    """SystemExit and friends must not reach the event loop."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError(f"the model raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped
