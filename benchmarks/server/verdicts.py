"""A promise judged: its goal, what was measured, and how that compares with the best peer and the ceiling. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from benchmarks.server.samples import Spread, Table, shown
from benchmarks.server.servers import SERVERS

OURS: Final = "ours"


@dataclass(frozen=True)
class Goal:
    """`>= 8 x`."""

    sign: Literal[">=", "<="]
    bound: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:g} {self.unit}".strip()

    def kept_by(self, value: float) -> bool | None:
        """None: not measured."""
        if math.isnan(value):
            return None
        return value >= self.bound if self.sign == ">=" else value <= self.bound


@dataclass(frozen=True)
class Verdict:
    """One promise. `value` is what the goal is about, in its unit; medians over the rounds unless it says otherwise."""

    work: str
    what: str
    goal: Goal
    value: float
    measured: str = ""
    """In words, when there is more to say than the value."""
    peer: str = ""
    """The best peer's figure beside ours."""
    ceiling: str = ""

    @property
    def kept(self) -> bool | None:
        """None: it could not be judged."""
        return self.goal.kept_by(self.value)

    def said(self) -> str:
        """What was measured."""
        if math.isnan(self.value):
            return "not measured"
        return self.measured or f"{shown(self.value)} {self.goal.unit}".strip()


def best(table: Table, work: str, load: str, value: str, *, higher: bool = True) -> tuple[str, float] | None:
    """The peer with the best median, and that."""
    found = [
        (spread.median, name)
        for name in table.servers(work)
        if name in SERVERS and SERVERS[name].kind == "peer" and (spread := table.of(work, name, load, value))
    ]
    if not found:
        return None
    median, name = max(found) if higher else min(found)
    return name, median


def ratio(ours: Spread | None, other: Spread | float | None) -> float:
    """Of medians; NaN when either is missing."""
    against = other.median if isinstance(other, Spread) else other
    return math.nan if ours is None or not against else ours.median / against


def median_of(spread: Spread | None) -> float:
    """NaN when it was not measured."""
    return spread.median if spread else math.nan


def beside(peer: tuple[str, float] | None, ours: float, unit: str) -> str:
    """The best peer's figure and the ratio of ours to it."""
    if peer is None or math.isnan(ours):
        return ""
    times = f", {shown(ours / peer[1])}x" if peer[1] else ""
    return f"{SERVERS[peer[0]].title} {shown(peer[1])} {unit}{times}"


def figure(spread: Spread | None, unit: str) -> str:
    """Median, lowest and highest."""
    return f"{spread} {unit} ({spread.range})" if spread else "not measured"


def worst(spreads: Iterable[Spread | None], *, lowest: bool = False) -> float:
    """The worst median of several loads; NaN when one of those that matter has none at all."""
    medians = [spread.median for spread in spreads if spread]
    return math.nan if not medians else min(medians) if lowest else max(medians)


def of_all(table: Table, work: str, server: str, loads: Sequence[str], value: str) -> list[Spread | None]:
    """One value under several loads."""
    return [table.of(work, server, load, value) for load in loads]
