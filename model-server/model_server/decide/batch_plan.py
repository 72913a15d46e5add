"""What does a free slot run next? One request, or several of the same kind as one batch."""

from __future__ import annotations

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
    """Seconds that a free slot waits for more rows; 0: what waits is run at once, and gathers while all are busy."""


NO_BATCHING: Final = Limits()


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


def plan(queue: Iterable[W], now: float, limits: Limits, service: ServiceTime, probe: bool = False) -> Plan[W]:
    """`queue` in the order in which it is to be served.

    `probe`: nothing runs, so the first is run whatever was measured. Only so is it found that the model is quicker now.
    """
    run: list[W] = []
    expired: list[W] = []
    hopeless: list[W] = []
    rows = 0
    tightest = float("inf")
    for item in queue:
        if item.deadline <= now:
            expired.append(item)
        elif item.deadline - now < service.at_most(item.rows) and (run or not probe):
            hopeless.append(item)
        elif not run:
            run.append(item)
            rows, tightest = item.rows, item.deadline
            if item.signature is None or rows >= limits.max_rows:
                break
        elif item.signature == run[0].signature and rows + item.rows <= limits.max_rows:
            # A larger batch takes longer: not past the deadline of anybody in it.
            if min(tightest, item.deadline) - now < service.at_most(rows + item.rows):
                break
            run.append(item)
            rows, tightest = rows + item.rows, min(tightest, item.deadline)
            if rows >= limits.max_rows:
                break
    if run and (until := _gathering_until(run[0], rows, tightest, limits, service)) > now:
        return Plan((), tuple(expired), tuple(hopeless), until)
    return Plan(tuple(run), tuple(expired), tuple(hopeless))


def _gathering_until(head: Waiting, rows: int, tightest: float, limits: Limits, service: ServiceTime) -> float:
    """Until when to wait for more rows: as long as the oldest may be kept, and everybody is still in time."""
    if limits.max_delay <= 0 or head.signature is None or rows >= limits.max_rows:
        return 0.0
    return min(head.arrived + limits.max_delay, tightest - service.at_most(limits.max_rows))
