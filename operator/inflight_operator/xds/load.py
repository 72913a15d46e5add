"""Demand per backend, from the routers' load reports. Pure but for the clock that is passed in.

A report says how many requests are in progress at its instant, running in a pod or queued there. All routers report
at the same instants (`xds.lrs` sees to it), so their sum is the whole at that instant: clients that always wait are
counted once, whichever router they use next. `xds.settled` makes demand of these sums.

Quiet clusters are left out of a report: missing in the report of a router is zero, a missing report is unknown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from .build import cluster_name
from .model import Endpoint
from .settled import WINDOWS, estimate

REPORT_SECONDS = 0.25
STALE_SECONDS = 3.0
"""A router that has missed this many seconds of reports is unknown."""
_SHORTEST, _LONGEST = WINDOWS[0], WINDOWS[-1]

Counts = Mapping[str, int]
ByEndpoint = Mapping[str, Mapping[Endpoint, int]]
_Kept = TypeVar("_Kept")


@dataclass(frozen=True, slots=True)
class Report:
    """Requests in progress at one instant at one router: by cluster, and by endpoint of each cluster."""

    total: Counts = field(default_factory=dict)
    by_endpoint: ByEndpoint = field(default_factory=dict)


class Window:
    """The last reports of one router on one stream. What it says of endpoints is kept for the shortest window only."""

    def __init__(self) -> None:
        self._totals: deque[tuple[float, Counts]] = deque()
        self._endpoints: deque[tuple[float, ByEndpoint]] = deque()

    def add(self, now: float, report: Report) -> None:
        if self.silent(now):
            self._totals.clear()  # what was before doesn't fit what the others said meanwhile
            self._endpoints.clear()
        self._totals.append((now, report.total))
        self._endpoints.append((now, report.by_endpoint))
        _forget(self._totals, now - _LONGEST)
        _forget(self._endpoints, now - _SHORTEST)

    def silent(self, now: float) -> bool:
        """No report yet, or none for too long."""
        return not self._totals or self._totals[-1][0] < now - STALE_SECONDS

    def totals(self) -> Iterator[tuple[float, Counts]]:
        """When, and requests in progress by cluster: the newest first."""
        return reversed(self._totals)

    def endpoints(self, now: float) -> list[ByEndpoint]:
        """Requests in progress by endpoint, in the shortest window."""
        return [counts for at, counts in self._endpoints if at > now - _SHORTEST]


def _forget(reports: deque[tuple[float, _Kept]], until: float) -> None:
    while reports and reports[0][0] <= until:
        reports.popleft()


class Load:
    """Demand as all routers together report it; None wherever it isn't known: hold then."""

    def __init__(self, clock: Callable[[], float], connected: Callable[[], Collection[str]]) -> None:
        self._clock = clock
        self._connected = connected
        self._expected: int | None = None
        self._windows: dict[str, Window] = {}

    def expect(self, routers: int | None) -> None:
        """How many routers serve (the endpoints of their Service); None: those that are connected."""
        self._expected = routers

    def opened(self, node: str) -> Window:
        """A router has opened a stream of reports; an earlier one of the same router is over."""
        window = self._windows[node] = Window()
        return window

    def closed(self, node: str, window: Window) -> None:
        if self._windows.get(node) is window:
            del self._windows[node]

    def report(self, window: Window, report: Report) -> None:
        window.add(self._clock(), report)

    def in_flight(self, namespace: str, backend: str) -> float | None:
        """Requests in progress at a backend, as `settled.estimate` has it; None: not known."""
        now, name = self._clock(), cluster_name(namespace, backend)
        routers = self._routers(now)
        if routers is None:
            return None
        samples = []
        for reports in zip(*(window.totals() for window in routers), strict=False):
            age = now - max(at for at, _ in reports)
            samples.append((age, sum(counts.get(name, 0) for _, counts in reports)))
        return estimate(samples)

    def in_flight_by_endpoint(self, namespace: str, backend: str) -> dict[Endpoint, float] | None:
        """Means by endpoint over the shortest window; endpoints that were quiet all of it are left out."""
        now, name = self._clock(), cluster_name(namespace, backend)
        routers = self._routers(now)
        if routers is None:
            return None
        means: dict[Endpoint, float] = {}
        for window in routers:
            reports = window.endpoints(now)
            for report in reports:
                for endpoint, count in report.get(name, {}).items():
                    means[endpoint] = means.get(endpoint, 0.0) + count / len(reports)
        return means

    def _routers(self, now: float) -> Collection[Window] | None:
        """The windows of all routers, if none is missing or silent and there is one at all."""
        windows = self._windows.values()
        missing = set(self._connected()) - self._windows.keys()
        if missing or not windows or len(windows) < (self._expected or 0):
            return None
        return None if any(window.silent(now) for window in windows) else windows
