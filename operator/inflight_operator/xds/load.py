"""Demand per backend, from the routers' load reports. Pure but for the clock that is passed in.

A report says how many requests are in progress at its instant, running in a pod or queued there. What is served
is the mean over the last WINDOW_SECONDS, summed over the routers: long enough to smooth short requests (six
samples per router), short enough that a step is whole before the HPA's next look (every 15 s). A mean of
samples never exceeds the largest of them, so demand doesn't overshoot.

Quiet clusters are left out of a report: missing in the report of a router is zero, a missing report is unknown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from .build import cluster_name
from .model import Endpoint

REPORT_SECONDS = 1
WINDOW_SECONDS = 6.0
STALE_SECONDS = 3.0
"""A router that has missed this many seconds of reports is unknown."""


@dataclass(frozen=True, slots=True)
class Report:
    """Requests in progress at one instant at one router: by cluster, and by endpoint of each cluster."""

    total: Mapping[str, int] = field(default_factory=dict)
    by_endpoint: Mapping[str, Mapping[Endpoint, int]] = field(default_factory=dict)


class Window:
    """The last reports of one router on one stream."""

    def __init__(self) -> None:
        self._reports: deque[tuple[float, Report]] = deque()

    def add(self, now: float, report: Report) -> None:
        self._reports.append((now, report))
        self._forget(now)

    def reports(self, now: float) -> Collection[Report] | None:
        """Those of the window; None when the router is silent or has just come."""
        self._forget(now)
        if not self._reports or self._reports[-1][0] < now - STALE_SECONDS:
            return None
        return [report for _, report in self._reports]

    def _forget(self, now: float) -> None:
        while self._reports and self._reports[0][0] <= now - WINDOW_SECONDS:
            self._reports.popleft()


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
        """Mean number of requests in progress at a backend over the window; None: not known."""
        routers = self._routers()
        if routers is None:
            return None
        name = cluster_name(namespace, backend)
        return sum(sum(r.total.get(name, 0) for r in reports) / len(reports) for reports in routers)

    def in_flight_by_endpoint(self, namespace: str, backend: str) -> dict[Endpoint, float] | None:
        """The same by endpoint; endpoints that were quiet all the window are left out."""
        routers = self._routers()
        if routers is None:
            return None
        name = cluster_name(namespace, backend)
        means: dict[Endpoint, float] = {}
        for reports in routers:
            for report in reports:
                for endpoint, count in report.by_endpoint.get(name, {}).items():
                    means[endpoint] = means.get(endpoint, 0.0) + count / len(reports)
        return means

    def _routers(self) -> list[Collection[Report]] | None:
        """The windows of all routers, if none is missing or silent and there is one at all."""
        now = self._clock()
        windows = [window.reports(now) for window in self._windows.values()]
        known = [reports for reports in windows if reports is not None]
        missing = set(self._connected()) - self._windows.keys()
        if missing or not known or len(known) < max(len(windows), self._expected or 0):
            return None
        return known
