"""Demand per backend, from the routers' load reports. Pure but for the clock that is passed in.

A report says how many requests are in progress at its instant, running in a pod or queued there. All routers report
at the same instants (`xds.lrs` sees to it), so their sum is the whole at that instant: clients that always wait are
counted once, whichever router they use next. `xds.settled` makes demand of these sums.

Quiet clusters are left out of a report: missing in the report of a router is zero, a missing report is unknown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from .clusters import cluster_name
from .model import Endpoint, Pace
from .settled import WINDOWS, estimate

REPORT_SECONDS = 0.25
STALE_SECONDS = 3.0
"""A router that has missed this many seconds of reports is unknown."""
_SHORTEST, _LONGEST = WINDOWS[0], WINDOWS[-1]

PACE_SECONDS = 10.0
"""How far back a pod's pace is told from, and for how long it is gathered after somebody has asked for it."""

Counts = Mapping[str, int]
ByEndpoint = Mapping[str, Mapping[Endpoint, int]]
_Kept = TypeVar("_Kept")


@dataclass(frozen=True, slots=True)
class Flow:
    """One pod in one report: requests in progress at its instant; sent, and answered, since the one before."""

    in_progress: int
    sent: int
    answered: int


Flows = Mapping[str, Mapping[str, Flow]]
"""By cluster and address: a pod's ports for both protocols are one."""


@dataclass(frozen=True, slots=True)
class Report:
    """Requests in progress at one instant at one router: by cluster, and by endpoint of each cluster; the flows only of
    clusters that were asked about."""

    total: Counts = field(default_factory=dict)
    by_endpoint: ByEndpoint = field(default_factory=dict)
    flows: Flows = field(default_factory=dict)


class Window:
    """The last reports of one router on one stream. What it says of endpoints is kept for the shortest window only."""

    def __init__(self) -> None:
        self._totals: deque[tuple[float, Counts]] = deque()
        self._endpoints: deque[tuple[float, ByEndpoint]] = deque()
        self._flows: deque[tuple[float, Flows]] = deque()

    def add(self, now: float, report: Report) -> None:
        if self.silent(now):
            self._totals.clear()  # what was before doesn't fit what the others said meanwhile
            self._endpoints.clear()
            self._flows.clear()
        self._totals.append((now, report.total))
        self._endpoints.append((now, report.by_endpoint))
        _forget(self._totals, now - _LONGEST)
        _forget(self._endpoints, now - _SHORTEST)
        self._flows.append((now, report.flows))
        _forget(self._flows, now - PACE_SECONDS)

    def silent(self, now: float) -> bool:
        """No report yet, or none for too long."""
        return not self._totals or self._totals[-1][0] < now - STALE_SECONDS

    def totals(self) -> list[tuple[float, Counts]]:
        """When, and requests in progress by cluster: the newest first."""
        return list(reversed(self._totals))

    def endpoints(self, now: float) -> list[ByEndpoint]:
        """Requests in progress by endpoint, in the shortest window."""
        return [counts for at, counts in self._endpoints if at > now - _SHORTEST]

    def paces(self, cluster: str, since: float) -> dict[str, Pace]:
        """Of each address that had requests, as this router has seen it since then."""
        reports = [flows for at, flows in self._flows if at > since]
        seconds = len(reports) * REPORT_SECONDS
        found: dict[str, Pace] = {}
        for flows in reports:
            for address, flow in flows.get(cluster, {}).items():
                sofar = found.get(address, Pace(0, 0, 0))
                found[address] = Pace(
                    sofar.in_progress + flow.in_progress / len(reports),
                    sofar.sent + flow.sent / seconds,
                    sofar.answered + flow.answered / seconds,
                )
        return found


_FIRST_PACE_SECONDS = 3.0
"""What was gathered in less is no mean yet."""


def _forget(reports: deque[tuple[float, _Kept]], until: float) -> None:
    while reports and reports[0][0] <= until:
        reports.popleft()


@dataclass(frozen=True, slots=True)
class Samples:
    """The reports of all routers, matched: those of one index are of one instant, the newest is first."""

    by_router: Sequence[Sequence[Counts]]
    lengths: Sequence[int]
    """How many there are in each of WINDOWS."""

    def of(self, cluster: str) -> list[int]:
        """Requests in progress at all routers together."""
        return [
            sum(seen) for seen in zip(*([c.get(cluster, 0) for c in totals] for totals in self.by_router), strict=True)
        ]


def matched(windows: Collection[Window]) -> Samples:
    """As far back as all routers reach; one report at least of each is there."""
    reports = list(zip(*(window.totals() for window in windows), strict=False))
    instants = [max(at for at, _ in seen) for seen in reports]
    lengths = [sum(at > instants[0] - window for at in instants) for window in WINDOWS]
    return Samples([[totals for _, totals in column] for column in zip(*reports, strict=True)], lengths)


class Load:
    """Demand as all routers together report it; None wherever it isn't known: hold then."""

    def __init__(self, clock: Callable[[], float], connected: Callable[[], Collection[str]]) -> None:
        self._clock = clock
        self._connected = connected
        self._expected: int | None = None
        self._windows: dict[str, Window] = {}
        self._asked: dict[str, tuple[float, float]] = {}
        """When somebody asked first and last for the pace of a cluster's endpoints."""
        self._samples: Samples | None = None
        """Of all windows; None: to be made, since one has changed."""

    def expect(self, routers: int | None) -> None:
        """How many routers serve (the endpoints of their Service); None: those that are connected."""
        self._expected = routers

    def opened(self, node: str) -> Window:
        """A router has opened a stream of reports; an earlier one of the same router is over."""
        window = self._windows[node] = Window()
        self._samples = None
        return window

    def closed(self, node: str, window: Window) -> None:
        if self._windows.get(node) is window:
            del self._windows[node]
            self._samples = None

    def report(self, window: Window, report: Report) -> None:
        window.add(self._clock(), report)
        self._samples = None

    def in_flight(self, namespace: str, backend: str) -> float | None:
        """Requests in progress at a backend, as `settled.estimate` has it; None: not known."""
        routers = self._routers(self._clock())
        if routers is None:
            return None
        samples = self._samples = self._samples or matched(routers)
        return estimate(samples.of(cluster_name(namespace, backend)), samples.lengths)

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

    def paces(self, namespace: str, backend: str) -> dict[str, Pace] | None:
        """The pace of each address that had requests in the last seconds; None: not known, or not yet, since it is
        gathered only for those who ask."""
        now, name = self._clock(), cluster_name(namespace, backend)
        first, _ = self._asked.get(name, (now, now))
        self._asked[name] = first, now
        routers = self._routers(now)
        if routers is None or now - first < _FIRST_PACE_SECONDS:
            return None
        found: dict[str, Pace] = {}
        for window in routers:
            for address, pace in window.paces(name, first).items():
                sofar = found.get(address, Pace(0, 0, 0))
                found[address] = Pace(
                    sofar.in_progress + pace.in_progress, sofar.sent + pace.sent, sofar.answered + pace.answered
                )
        return found

    def asked(self) -> Collection[str]:
        """The clusters whose flows somebody wants to know."""
        if self._asked:
            since = self._clock() - PACE_SECONDS
            self._asked = {name: times for name, times in self._asked.items() if times[1] > since}
        return self._asked

    def _routers(self, now: float) -> Collection[Window] | None:
        """The windows of all routers, if none is missing or silent and there is one at all."""
        windows = self._windows.values()
        missing = set(self._connected()) - self._windows.keys()
        if missing or not windows or len(windows) < (self._expected or 0):
            return None
        return None if any(window.silent(now) for window in windows) else windows
