"""What is counted, as plain numbers: the hot path adds to them, a scrape reads them.

prometheus_client's own metrics take a lock for every addition, a microsecond each; a request of a small model makes
four. These are only for the event loop's thread, so they need none. They know no names and no exposition format.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One observation that can be looked up elsewhere: by a request's id or a trace's."""

    label: str
    id: str
    value: float
    at: float
    """Seconds since 1970."""


Named = Sequence[Any]
"""(label, id, value, seconds since 1970), as in Exemplar."""
HistogramState = tuple[Sequence[int], float, Sequence[Named | None]]


class Counter:
    """How often."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, times: int = 1) -> None:
        """Once more, or so many times."""
        self.value += times

    def state(self) -> int:
        """For `add`, perhaps in another process."""
        return self.value

    def add(self, state: int) -> None:
        """What another one has counted."""
        self.value += state


class Gauge:
    """How much, as somebody last said."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        """From now on."""
        self.value = value

    def state(self) -> float:
        """For `add`, perhaps in another process."""
        return self.value

    def add(self, state: float) -> None:
        """What another one says as well."""
        self.value += state


class Histogram:
    """How many of which size; of each size the latest that has a name."""

    __slots__ = ("_bounds", "_counts", "_named", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds`: each bucket's largest value, ascending; one more bucket takes what is larger than all."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._named: list[tuple[str, str, float, float] | None] = [None] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One of `value`."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def observe_named(self, value: float, label: str, name: str) -> None:
        """One of `value`, which is called `name`; `label` says what kind of name that is."""
        at = bisect_left(self._bounds, value)
        self._counts[at] += 1
        self.sum += value
        self._named[at] = (label, name, value, time.time())

    def state(self) -> HistogramState:
        """For `add`, perhaps in another process."""
        return self._counts, self.sum, self._named

    def add(self, state: HistogramState) -> None:
        """What another one of the same bounds has observed; of each size the latest that has a name is kept."""
        counts, total, named = state
        self.sum += total
        for at, count in enumerate(counts):
            self._counts[at] += count
        for at, theirs in enumerate(named):
            mine = self._named[at]
            if theirs is not None and (mine is None or theirs[3] > mine[3]):
                self._named[at] = (theirs[0], theirs[1], theirs[2], theirs[3])

    def buckets(self) -> list[tuple[float, int, Exemplar | None]]:
        """(bound, observations up to it, exemplar), the last one's bound being infinity."""
        found, total = [], 0
        for bound, count, named in zip((*self._bounds, float("inf")), self._counts, self._named, strict=True):
            total += count
            found.append((bound, total, Exemplar(*named) if named else None))
        return found


T = TypeVar("T", Counter, Gauge, Histogram)


class Labelled(Generic[T]):
    """One instrument for each value of a label, made when it is first asked for."""

    __slots__ = ("_make", "children")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make: Callable[[], T] = make
        self.children: dict[str, T] = {}

    def labels(self, value: str) -> T:
        """The one of `value`. Values come from the code, never from clients: each is kept for ever."""
        child = self.children.get(value)
        if child is None:
            child = self.children[value] = self._make()
        return child

    def state(self) -> dict[str, Any]:
        """For `add`, perhaps in another process."""
        return {value: child.state() for value, child in self.children.items()}

    def add(self, state: Mapping[str, Any]) -> None:
        """What another one of the same kind has counted."""
        for value, theirs in state.items():
            self.labels(value).add(theirs)
