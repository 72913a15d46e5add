"""The server's counts. It counts; it decides nothing. Under which names they are told is `exposition`'s business."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from model_server.instruments import Counter, Gauge, Histogram, Labelled

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_SECONDS: Final = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_COUNTED: Final = (
    *("queue_wait", "shed", "cancelled", "worker_restarts", "cache_requests", "cache_evictions"),
    *("cache_shared_errors", "spans_dropped", "service", "batch_rows", "requests"),
)

State = Mapping[str, Any]
"""A Telemetry's counts as JSON has them."""


class Telemetry:
    """One registry per server, so that tests and several servers in one process don't share counts.

    Everything is counted on the event loop's thread, `cold_start` apart.
    """

    def __init__(self) -> None:
        self.queue_wait = Histogram(_SECONDS)
        self.shed = Labelled(Counter)
        self.cancelled = Counter()
        self.worker_restarts = Counter()
        self.cache_requests = Labelled(Counter)
        self.cache_evictions = Counter()
        self.cache_shared_errors = Counter()
        self.spans_dropped = Labelled(Counter)
        self.cold_start = Labelled(Gauge)
        self.service = Histogram(_SECONDS)
        self.batch_rows = Histogram(_ROWS)
        self.requests = Labelled(_seconds)
        self._by_status: dict[int, Histogram] = {}
        self.in_flight: Callable[[], int] = int
        self.queue_depth: Callable[[], int] = int
        self.cache_bytes: Callable[[], int] = int
        self.cache_entries: Callable[[], int] = int
        self.others: Callable[[], Iterable[State]] = tuple
        """What this server's other processes count (see model_server.fronts)."""

    def state(self) -> State:
        """All that is counted, for `add` in another process."""
        counted = {name: getattr(self, name).state() for name in _COUNTED}
        return {**counted, "in_flight": self.in_flight(), "queue_depth": self.queue_depth()}

    def add(self, state: State) -> None:
        """What another process has counted; not its gauges, which are over when it is."""
        for name in _COUNTED:
            getattr(self, name).add(state[name])

    def together(self) -> Telemetry:
        """The whole server's counts: these and the other processes'."""
        states = list(self.others())
        if not states:
            return self
        whole = Telemetry()
        whole.cold_start = self.cold_start
        whole.watch_cache(self.cache_bytes, self.cache_entries)
        for state in (self.state(), *states):
            whole.add(state)
        in_flight, queued = self.in_flight, self.queue_depth
        whole.watch(
            lambda: in_flight() + sum(state["in_flight"] for state in states),
            lambda: queued() + sum(state["queue_depth"] for state in states),
        )
        return whole

    @cached_property
    def registry(self) -> CollectorRegistry:
        """Everything, for a scrape. Its library is imported by the first one: it would be a tenth of the start."""
        from model_server.exposition import registry  # noqa: PLC0415

        return registry(self)

    def request(self, status: int, seconds: float, request_id: str = "", trace_id: str = "") -> None:
        """Count one prediction request; by its ids it can be found in the logs and traces."""
        histogram = self._by_status.get(status)
        if histogram is None:
            histogram = self._by_status[status] = self.requests.labels(str(status))
        if trace_id:
            histogram.observe_named(seconds, "trace_id", trace_id)
        elif request_id:
            histogram.observe_named(seconds, "request_id", request_id)
        else:
            histogram.observe(seconds)

    def ran(self, rows: int, seconds: float) -> None:
        """Count one run of the model."""
        self.service.observe(seconds)
        self.batch_rows.observe(rows)

    def watch(self, in_flight: Callable[[], int], queue_depth: Callable[[], int]) -> None:
        """Read the two gauges from where they are true, when somebody asks."""
        self.in_flight = in_flight
        self.queue_depth = queue_depth

    def watch_cache(self, held_bytes: Callable[[], int], entries: Callable[[], int]) -> None:
        """The same for the cache of answers."""
        self.cache_bytes = held_bytes
        self.cache_entries = entries


def _seconds() -> Histogram:
    return Histogram(_SECONDS)
