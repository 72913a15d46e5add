"""What does a free slot run next? One request, or several of the same kind as one batch."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from model_server.decide.service_time import ServiceTime


class Waiting(Protocol):
    """What the plan needs to know of a queued prediction."""

    @property
    def rows(self) -> int:
        """Rows of its inputs; at most `Limits.max_rows` where it can be batched."""

    @property
    def signature(self) -> Hashable | None:
        """Predictions of the same signature can be one batch; None: it runs alone."""

    @property
    def deadline(self) -> float:
        """When its answer is no longer wanted."""

    @property
    def arrived(self) -> float:
        """When it came."""


W = TypeVar("W", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a batch."""

    max_rows: int = 1
    """1: no batching."""
    max_delay: float = 0.0
    """Seconds that a free slot waits for more rows; 0: no longer than pays, by what was measured."""


NO_BATCHING: Final = Limits()

_LINGER_SHARE: Final = 0.35
"""Of a prediction's fixed cost that a free slot may wait for requests that are about to come."""
_CROWD: Final = 0.95
"""Share of the requests that a slot may expect with which it waits for no more."""
_DOUBT: Final = 0.25
"""Of one more request: that there may be a quarter of one more is nothing to wait for."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What else is known when a slot is free."""

    probe: bool = False
    """Nothing runs, so the first is run whatever was measured: only so is it found that the model is quicker now."""
    share: float = 0.0
    """Requests that this slot may expect: those in flight lately, divided among the slots."""
    free_since: float = 0.0
    """When a slot last came free."""


ALONE: Final = Traffic()


@dataclass(frozen=True, slots=True)
class Plan(Generic[W]):
    """What becomes of the queue's head; whatever is in none of the lists stays queued."""

    run: tuple[W, ...] = ()
    expired: tuple[W, ...] = ()
    """Past their deadline: never computed."""
    hopeless: tuple[W, ...] = ()
    """Too little time is left: computing them would only take the time of those behind."""
    look_again: float | None = None
    """When to ask again, if nothing runs now only because more rows may come."""


def plan(queue: Iterable[W], now: float, limits: Limits, service: ServiceTime, traffic: Traffic = ALONE) -> Plan[W]:
    """`queue` in the order in which it is to be served."""
    run: list[W] = []
    expired: list[W] = []
    hopeless: list[W] = []
    rows = 0
    tightest = float("inf")
    at_ease = now + service.at_most(limits.max_rows)  # whose deadline is later has time for any batch: nearly everybody
    for item in queue:
        deadline, grown = item.deadline, rows + item.rows
        hurried = deadline <= at_ease or item.rows > limits.max_rows
        if hurried and deadline <= now:
            expired.append(item)
            continue
        if hurried and deadline - now < service.at_most(item.rows) and (run or not traffic.probe):
            hopeless.append(item)
            continue
        soonest = min(tightest, deadline)
        if run and (item.signature != run[0].signature or grown > limits.max_rows):
            continue
        if run and soonest < at_ease and soonest - now < service.at_most(grown):
            continue  # a larger batch takes longer: not past the deadline of anybody in it
        run.append(item)
        rows, tightest = grown, soonest
        if item.signature is None or rows >= limits.max_rows:
            break
    if run and run[0].signature is not None and rows < limits.max_rows:
        gathered = run[0].arrived + limits.max_delay
        if not limits.max_delay:
            gathered = max(run[0].arrived, traffic.free_since) + _lingering(len(run), traffic, service)
        until = min(gathered, tightest - service.at_most(limits.max_rows))
        if until > now:
            return Plan((), tuple(expired), tuple(hopeless), until)
    return Plan(tuple(run), tuple(expired), tuple(hopeless))


def _lingering(waiting: int, traffic: Traffic, service: ServiceTime) -> float:
    """Seconds that a free slot may wait for company, where nobody has said how long.

    When a batch ends, its clients ask again within milliseconds. A slot that took the first of them alone, or only
    those that had come meanwhile, would be busy with few rows for nearly as long as with all of them. So it waits
    while fewer are there than lately came at once, for 0.35 of what a prediction costs whatever its size; a lone
    client is never kept waiting.
    """
    if waiting >= math.ceil(_CROWD * traffic.share - _DOUBT):
        return 0.0
    return _LINGER_SHARE * service.expect(0)
