"""One prediction and those who wait for it. It wants what the most patient and the most important of them want."""

from __future__ import annotations

from typing import Protocol

from model_server.cache.control import Use
from model_server.queues import Done, Priority, Ticket


class Lookup(Protocol):
    """A question to the shared level that is under way."""

    def cancel(self) -> None:
        """Nobody wants to know any more."""


class Waiter(Ticket):
    """One of the requests that a flight answers."""

    __slots__ = ("flight", "use")
    flight: Flight
    """Set when it joins one."""

    def __init__(self, deadline: float, priority: Priority, done: Done, use: Use) -> None:
        super().__init__(0, 0.0, deadline, priority, done)
        self.use = use

    def taken(self) -> Done | None:
        """`done`, to be called now or never; None if it was called or the client has left."""
        done, self.done = self.done, None
        if self.timer is not None:
            self.timer.cancel()
        return done


class Flight:
    """A prediction of one key: looked up, queued or running until it is `over`."""

    __slots__ = ("deadline", "key", "lookup", "over", "priority", "ticket", "waiters", "write")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.waiters: dict[Waiter, None] = {}
        """In order of arrival."""
        self.deadline = 0.0
        """The latest of the waiters'."""
        self.priority = Priority.LOW
        """The highest of the waiters'."""
        self.write = False
        """Somebody who waited has not forbidden that the answer is kept."""
        self.lookup: Lookup | None = None
        self.ticket: Ticket | None = None
        """Its place in the queue, once it has one."""
        self.over = False

    def join(self, waiter: Waiter) -> bool:
        """One more waits; whether that changes the deadline or the priority."""
        self.waiters[waiter] = None
        waiter.flight = self
        self.write = self.write or waiter.use.write
        return self._follow(max(self.deadline, waiter.deadline), max(self.priority, waiter.priority))

    def leave(self, waiter: Waiter) -> bool:
        """One of several waits no more; whether that changes the deadline or the priority."""
        del self.waiters[waiter]
        if waiter.deadline < self.deadline and waiter.priority < self.priority:
            return False
        deadline = max(other.deadline for other in self.waiters)
        return self._follow(deadline, max(other.priority for other in self.waiters))

    def _follow(self, deadline: float, priority: Priority) -> bool:
        changed = deadline != self.deadline or priority is not self.priority
        self.deadline, self.priority = deadline, priority
        return changed
