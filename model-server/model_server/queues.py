"""Requests by priority, and the order in which they are served."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Hashable, Iterator
from enum import IntEnum
from typing import Final

from model_server import logs
from model_server.models.tensors import Tensors

Done = Callable[[Tensors | None, BaseException | None], None]
"""(outputs, error), one of them: called on the event loop once, unless the request was left before."""

_TURNS: Final = 5
"""Of so many starts one belongs to the lowest priority that waits, so that nobody starves."""


class Priority(IntEnum):
    """Higher is served first, and takes the place of lower ones in a full queue."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


class Ticket:
    """One admitted request."""

    __slots__ = (
        "arrived",
        "deadline",
        "done",
        "number",
        "open_items",
        "parts",
        "priority",
        "request_id",
        "started",
        "timer",
    )

    def __init__(self, number: int, arrived: float, deadline: float, priority: Priority, done: Done) -> None:
        self.number = number
        self.arrived = arrived
        self.deadline = deadline
        self.priority = priority
        self.done: Done | None = done
        """None once it was called, or nobody waits any more."""
        self.timer: asyncio.TimerHandle | None = None
        self.request_id = logs.request_id.get("")
        """What is logged while it is computed has this id."""
        self.started = 0.0
        """When its prediction began, on time.monotonic's clock, which is finer than the loop's; 0: not yet."""
        self.open_items = 1
        """Predictions of this request that run or wait."""
        self.parts: list[Tensors | None] = [None]
        """Outputs of an oversize request's pieces, in order."""


class Item:
    """One prediction to make: a request, or a piece of one that is larger than a batch may be."""

    __slots__ = ("arrived", "inputs", "part", "rows", "signature", "ticket")

    def __init__(self, ticket: Ticket, inputs: Tensors, rows: int, signature: Hashable | None, part: int) -> None:
        self.ticket = ticket
        self.inputs = inputs
        self.rows = rows
        self.signature = signature
        """Items of the same signature can be one batch; None: it runs alone."""
        self.part = part
        """Which piece of its request."""
        self.arrived = ticket.arrived

    @property
    def deadline(self) -> float:
        """Its request's, which may change while it waits."""
        return self.ticket.deadline


class Queues:
    """One queue for each priority, in order of arrival."""

    def __init__(self) -> None:
        self._queues: dict[Priority, dict[Item, None]] = {priority: {} for priority in reversed(Priority)}
        self._rows = dict.fromkeys(self._queues, 0)
        self.length = 0
        """Items of every priority."""
        self._starts = 0

    def add(self, item: Item) -> None:
        """`item` waits behind those of its priority."""
        priority = item.ticket.priority
        self._queues[priority][item] = None
        self._rows[priority] += item.rows
        self.length += 1

    def remove(self, item: Item) -> None:
        """`item`, which is here, waits no more."""
        priority = item.ticket.priority
        del self._queues[priority][item]
        self._rows[priority] -= item.rows
        self.length -= 1

    def move(self, ticket: Ticket, priority: Priority) -> None:
        """What waits of `ticket` takes its place, by arrival, among those of `priority`."""
        items = self.of(ticket)
        for item in items:
            del self._queues[ticket.priority][item]
            self._rows[ticket.priority] -= item.rows
            self._rows[priority] += item.rows
        ticket.priority = priority
        queue = self._queues[priority]
        in_order = sorted([*queue, *items], key=lambda item: item.ticket.number)
        queue.clear()
        queue.update(dict.fromkeys(in_order))

    def of(self, ticket: Ticket) -> list[Item]:
        """What of a request waits."""
        return [item for item in self._queues[ticket.priority] if item.ticket is ticket]

    def in_turn(self) -> Iterator[Item]:
        """Everybody in the order in which they are to be served: by priority, now and then the other way round."""
        queues = [queue for queue in self._queues.values() if queue]
        if len(queues) > 1 and self._starts % _TURNS == _TURNS - 1:
            queues.reverse()
        return itertools.chain.from_iterable(queues)

    def started(self) -> None:
        """A turn was taken."""
        self._starts += 1

    def youngest_below(self, priority: Priority) -> Item | None:
        """Who gives way in a full queue: the last of the lowest priority under `priority`."""
        for lower in Priority:
            if lower < priority and self._queues[lower]:
                return next(reversed(self._queues[lower]))
        return None

    def ahead_of(self, priority: Priority) -> tuple[int, int]:
        """(items, rows) that would be served before a request of `priority` that came now."""
        items = rows = 0
        for served, queue in self._queues.items():
            if served < priority:
                break
            items += len(queue)
            rows += self._rows[served]
        return items, rows
