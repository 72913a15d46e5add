"""Should connections be served by one more process, or one fewer?

One process can use one core for HTTP. With a quick model, which runs where the request is parsed, that core is what
bounds the server; with any other the model is, and another process would only share its cores.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Action(Enum):
    """What to do now."""

    NONE = "none"
    START = "start"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the decision. Shares are of one core."""

    most: int
    """Processes besides the first."""
    busy: float = 0.75
    """An event loop that computes for this share of the time is busy."""
    busy_seconds: float = 0.5
    """For so long before there is one more process, and the model slow before there is one fewer."""
    idle: float = 0.35
    """All loops together compute for less than this share: one fewer would do."""
    idle_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What the last look found."""

    now: float
    """Seconds."""
    busy: tuple[float, ...]
    """Share of the time that each process's event loop computed, the first process's first."""
    connections: int
    """Of all processes."""
    quick: bool | None
    """Whether nearly all predictions ran on the event loop lately, or few did; None: neither."""
    room: bool
    """Whether there may be one more process now: there is memory for it, and none has just failed."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """Since when it has been so; None: it isn't."""

    busy_since: float | None = None
    idle_since: float | None = None
    slow_since: float | None = None

    def after(self, seen: Seen, limits: Limits) -> tuple[Pressure, Action]:
        """The pressure after a look, and what follows from it."""
        helpers = len(seen.busy) - 1
        wants_more = (
            helpers < limits.most
            and seen.quick is True
            and seen.room
            and seen.connections > helpers + 1  # each process needs one of its own
            and min(seen.busy) >= limits.busy
        )
        wants_fewer = helpers > 0 and sum(seen.busy) < limits.idle
        pressure = Pressure(
            busy_since=_since(self.busy_since, seen.now, wants_more),
            idle_since=_since(self.idle_since, seen.now, wants_fewer),
            slow_since=_since(self.slow_since, seen.now, helpers > 0 and seen.quick is False),
        )
        if _lasts(pressure.busy_since, seen.now, limits.busy_seconds):
            return Pressure(), Action.START
        idle = _lasts(pressure.idle_since, seen.now, limits.idle_seconds)
        if idle or _lasts(pressure.slow_since, seen.now, limits.busy_seconds):
            return Pressure(), Action.STOP
        return pressure, Action.NONE


CALM: Final = Pressure()


def _since(since: float | None, now: float, holds: bool) -> float | None:
    return None if not holds else now if since is None else since


def _lasts(since: float | None, now: float, seconds: float) -> bool:
    return since is not None and now - since >= seconds


def surplus(own: int, others: tuple[int, ...]) -> int:
    """Connections that a process with `own` should give away so that all have as many; 0 for a difference of one."""
    fair = -(-(own + sum(others)) // (1 + len(others)))
    return max(0, own - fair)


def share(total: int, parts: int, index: int) -> int:
    """What part `index` of `parts` gets of `total` slots or places: the first ones get what doesn't divide."""
    return total // parts + (index < total % parts)
