"""May a request that arrives now enter? On arrival is the only cheap time to say no."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from model_server.decide.service_time import ServiceTime

_UNMEASURED_SECONDS: Final = 1.0
"""Service time told to those refused before the first prediction was measured."""
_LONGEST_RETRY_SECONDS: Final = 10.0
"""More is only told when the queue itself takes longer: many of those who were told a time never come back."""


class Refusal(StrEnum):
    """Why not; the label of the metric."""

    QUEUE_FULL = "queue_full"
    TOO_LATE = "too_late"
    STANDING = "standing_queue"


@dataclass(frozen=True, slots=True)
class Load:
    """What the request finds."""

    remaining: Sequence[float]
    """Seconds until each slot is expected to be free."""
    waiting: int
    """Requests queued, of every priority."""
    max_queue: int
    ahead: int
    """Predictions queued that will be served before it, were there no batching."""
    rows_ahead: int
    """Rows of those."""
    max_rows: int
    """Rows of one batch; 1: no batching."""
    longest_wait: float
    """Seconds that anybody may wait now (see standing)."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer no, with the seconds that the request would have taken."""

    why: Refusal
    seconds: float


def decide(load: Load, rows: int, seconds_left: float, service: ServiceTime) -> Refused | None:
    """None: enter. `rows`: of the request; `seconds_left`: until its deadline."""
    wait, own = expected_wait(load, rows, service)
    if load.waiting >= load.max_queue:
        return Refused(Refusal.QUEUE_FULL, wait + own)
    if wait + own > seconds_left:
        return Refused(Refusal.TOO_LATE, wait + own)
    if wait > load.longest_wait:
        return Refused(Refusal.STANDING, wait + own)
    return None


def expected_wait(load: Load, rows: int, service: ServiceTime) -> tuple[float, float]:
    """(seconds until it starts, seconds that its prediction takes), both rather too long than too short."""
    if load.max_rows > 1:
        batches = load.rows_ahead // load.max_rows
        each = service.at_most(load.max_rows)
        own = service.at_most(min(load.max_rows, load.rows_ahead % load.max_rows + rows))
    else:
        batches = load.ahead
        each = service.at_most(_each(load))
        own = service.at_most(rows)
    ends = sorted(load.remaining)
    return ends[batches % len(ends)] + (batches // len(ends)) * each, own


def retry_after(load: Load, promises: int, service: ServiceTime) -> float:
    """Seconds until a refused client should come back.

    Everything queued has to run first. `promises` others were told a time that is still to come: each is told one
    service later than the one before, so that they come back one by one and not all at once to be refused together.
    """
    slots = len(load.remaining)
    if not service.measured:
        return _UNMEASURED_SECONDS * math.ceil((load.waiting + slots) / slots)
    batch = max(1, min(load.max_rows, load.rows_ahead) if load.max_rows > 1 else _each(load))
    batches = load.rows_ahead / batch
    each = service.expect(batch) / slots
    drained = sum(load.remaining) / slots + batches * each
    per_request = each * batches / load.ahead if load.ahead else each
    return max(drained, min(drained + promises * per_request, _LONGEST_RETRY_SECONDS))


def _each(load: Load) -> int:
    """Rows of a queued prediction on average, rounded up."""
    return -(-load.rows_ahead // load.ahead) if load.ahead else 0
