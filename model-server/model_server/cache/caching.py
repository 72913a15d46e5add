"""The cache in front of the queue, with the queue's own interface: what is kept is answered at once, the rest enters.

Equal requests at one time are one prediction: the first enters the queue, the others wait for it without taking a
place. It goes on while anybody wants it, as long as the most patient of them, with the priority of the most important.
Errors go to those who waited and are forgotten. It never makes a prediction fail: where it can't help, it computes.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

import structlog

from model_server.cache import store
from model_server.cache.control import Result, Use
from model_server.cache.flight import Flight, Waiter
from model_server.cache.keys import Keys
from model_server.cache.shared import Found, Shared
from model_server.cache.store import Store
from model_server.dispatcher import Dispatcher
from model_server.errors import Code, Problem
from model_server.models.tensors import Tensors
from model_server.queues import Done, Priority, Ticket
from model_server.settings import Settings
from model_server.telemetry import Telemetry

_log = structlog.get_logger()


class Caching:
    """A Dispatcher to whoever asks for predictions; used from the dispatcher's event loop only."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        keys: Keys,
        *,
        max_bytes: int,
        ttl: float,
        telemetry: Telemetry,
        shared: Shared | None = None,
    ) -> None:
        """`ttl`: seconds that an answer is kept. `shared`: where other replicas' answers are found."""
        self._loop = asyncio.get_running_loop()
        self._dispatcher = dispatcher
        self._keys = keys
        self._store = Store(max_bytes, telemetry.cache_evictions)
        self._ttl = ttl
        self._telemetry = telemetry
        self._counts = {result: telemetry.cache_requests.labels(result.value) for result in Result}
        self._shared = shared
        self._flights: dict[bytes, Flight] = {}
        telemetry.watch(lambda: self.in_flight, lambda: self.queue_depth)
        telemetry.watch_cache(lambda: self._store.bytes, lambda: len(self._store))

    @property
    def in_flight(self) -> int:
        """Requests running, queued, or waiting for an equal one."""
        flights = self._flights.values()
        return self._dispatcher.in_flight + sum(max(0, len(f.waiters) - (f.ticket is not None)) for f in flights)

    @property
    def queue_depth(self) -> int:
        """Predictions queued."""
        return self._dispatcher.queue_depth

    def check(self, deadline: float, priority: Priority = Priority.NORMAL, rows: int = 1) -> None:
        """See Dispatcher. What might be answered without a place in the queue is not refused for want of one."""
        hopeless = not self._store and not self._flights and self._shared is None
        if hopeless or self._loop.time() >= deadline:
            self._dispatcher.check(deadline, priority, rows)

    def enter(self, inputs: Tensors, deadline: float, priority: Priority, done: Done, use: Use | None = None) -> Ticket:
        """See Dispatcher. `use` is told how the request was answered, before `done` is called."""
        use = use or Use()
        key = self._keys.key(inputs)
        if key is None or not use.read:
            self._tell(use, Result.BYPASS)
            return self._dispatcher.enter(inputs, deadline, priority, self._renewing(key, use, done))
        outputs = self._store.get(key, self._loop.time(), use.max_age)
        if outputs is not None:
            self._tell(use, Result.HIT)
            done(outputs, None)
            return _ANSWERED
        waiter = Waiter(deadline, priority, done, use)
        flight = self._flights.get(key)
        if flight is not None:
            self._join(flight, waiter)
        else:
            flight = self._flights[key] = Flight(key)
            flight.join(waiter)
            self._begin(flight, inputs, waiter)
        return waiter

    def leave(self, ticket: Ticket) -> None:
        """See Dispatcher: what others wait for goes on."""
        if not isinstance(ticket, Waiter):
            self._dispatcher.leave(ticket)
            return
        flight = ticket.flight
        if ticket.taken() is None or flight.over:
            return
        if len(flight.waiters) == 1:
            self._give_up(flight)
        elif flight.leave(ticket):
            self._follow(flight)

    async def close(self) -> None:
        """The shared level is asked nothing more."""
        if self._shared is not None:
            await self._shared.close()

    def _renewing(self, key: bytes | None, use: Use, done: Done) -> Done:
        """`done`, with what is kept renewed before, where that is allowed."""
        if key is None or not use.write:
            return done

        def keep_and_tell(outputs: Tensors | None, error: BaseException | None) -> None:
            if outputs is not None:
                self._keep(key, outputs)
            done(outputs, error)

        return keep_and_tell

    def _join(self, flight: Flight, waiter: Waiter) -> None:
        """Wait for a prediction that others wait for: from now on each has a timer of his own."""
        self._tell(waiter.use, Result.COALESCED)
        first = next(iter(flight.waiters), None)
        if first is not None and first.timer is None:
            first.timer = self._loop.call_at(first.deadline, self._expire, first)
        waiter.timer = self._loop.call_at(waiter.deadline, self._expire, waiter)
        if flight.join(waiter):
            self._follow(flight)

    def _begin(self, flight: Flight, inputs: Tensors, first: Waiter) -> None:
        """Look for the answer elsewhere, or compute it. Raises what the queue raises, to the first who asked."""
        if self._shared is not None:
            flight.lookup = self._shared.look_up(flight.key, partial(self._looked_up, flight, inputs, first))
            if flight.lookup is not None:
                return
        self._tell(first.use, Result.MISS)
        try:
            self._compute(flight, inputs)
        except BaseException as error:
            first.taken()
            self._end(flight, None, error)
            raise

    def _looked_up(self, flight: Flight, inputs: Tensors, first: Waiter, found: Found | None) -> None:
        flight.lookup = None
        now = self._loop.time()
        if found is not None:
            since = now - (self._ttl - found.remaining)
            self._store.put(flight.key, found.kept, since, now + found.remaining, now)
            if now - since <= min(waiter.use.max_age for waiter in flight.waiters):
                self._tell(first.use, Result.HIT)
                self._end(flight, found.kept.outputs, None)
                return
        self._tell(first.use, Result.MISS)
        try:
            self._compute(flight, inputs)
        except Exception as error:
            self._end(flight, None, error)

    def _compute(self, flight: Flight, inputs: Tensors) -> None:
        deadline, priority = flight.deadline, flight.priority
        ticket = self._dispatcher.enter(inputs, deadline, priority, partial(self._computed, flight))
        if flight.over:  # answered by now, or given up while others were served
            self._dispatcher.leave(ticket)
            return
        flight.ticket = ticket
        if (flight.deadline, flight.priority) != (deadline, priority):
            self._follow(flight)

    def _computed(self, flight: Flight, outputs: Tensors | None, error: BaseException | None) -> None:
        if outputs is not None and flight.write:
            self._keep(flight.key, outputs)
        self._end(flight, outputs, error)

    def _end(self, flight: Flight, outputs: Tensors | None, error: BaseException | None) -> None:
        """Answer everybody who still waits; whoever comes from now on finds what is kept, or begins anew."""
        self._close(flight)
        traceback = error.__traceback__ if error is not None else None
        started = flight.ticket.started if flight.ticket is not None else 0.0
        for waiter in flight.waiters:
            done = waiter.taken()
            if done is None:
                continue
            waiter.started = started
            if error is not None:
                error.__traceback__ = traceback  # each who raises it adds to it
            try:
                done(outputs, error)
            except Exception as failure:  # the others still get their answers
                _log.error("an answer could not be given", exc_info=failure)

    def _expire(self, waiter: Waiter) -> None:
        ticket = waiter.flight.ticket
        if ticket is not None and self._dispatcher.waits(ticket):
            self._telemetry.shed.labels("deadline").inc()
        done = waiter.done
        self.leave(waiter)
        if done is not None:
            done(None, Problem(Code.DEADLINE, "the deadline passed while an equal request was being computed"))

    def _follow(self, flight: Flight) -> None:
        if flight.ticket is not None:
            self._dispatcher.wanted(flight.ticket, flight.deadline, flight.priority)

    def _give_up(self, flight: Flight) -> None:
        """Nobody waits any more."""
        self._close(flight)
        if flight.lookup is not None:
            flight.lookup.cancel()
        if flight.ticket is not None:
            self._dispatcher.leave(flight.ticket)

    def _close(self, flight: Flight) -> None:
        flight.over = True
        self._flights.pop(flight.key, None)

    def _keep(self, key: bytes, outputs: Tensors) -> None:
        kept, now = store.own(outputs), self._loop.time()
        if kept is None:
            return
        self._store.put(key, kept, now, now + self._ttl, now)
        if self._shared is not None:
            self._shared.put(key, kept)

    def _tell(self, use: Use, result: Result) -> None:
        use.result = result
        self._counts[result].inc()


_ANSWERED: Final = Ticket(0, 0.0, 0.0, Priority.NORMAL, lambda *_: None)
_ANSWERED.open_items = 0


def over(dispatcher: Dispatcher, settings: Settings, digest: str, telemetry: Telemetry) -> Dispatcher | Caching:
    """`dispatcher`, behind a cache if the settings ask for one. LoadFailure when the shared cache's client is missing.

    Replicas share answers only with those that were told to serve the same artifact in the same way; what a model is
    made of besides (its image, its variables) is known by the revision, so a canary has answers of its own.
    """
    if not settings.cache_max_megabytes:
        return dispatcher
    model = settings.model
    keys = Keys(digest, model.name, model.format, model.entrypoint, settings.revision)
    shared = None
    if settings.cache_url:
        prefix = f"inflight:{model.name}:{digest[:16]}:"
        shared = Shared(settings.cache_url, prefix, settings.cache_ttl_seconds, telemetry.cache_shared_errors)
    max_bytes = settings.cache_max_megabytes * 1024**2
    ttl = settings.cache_ttl_seconds
    return Caching(dispatcher, keys, max_bytes=max_bytes, ttl=ttl, telemetry=telemetry, shared=shared)
