"""The server's metrics, by the names of the contract. It counts; it decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

disable_created_metrics()  # type: ignore[no-untyped-call]


class Telemetry:
    """One registry per server, so that tests and several servers in one process don't share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._in_flight = self._gauge("requests_in_flight", "Requests running or queued, refused ones not included")
        self._queue_depth = self._gauge("queue_depth", "Requests waiting for a free slot")
        self.queue_wait = self._histogram("queue_wait_seconds", "Wait for a free slot, of requests that got one")
        self._service = self._histogram("service_seconds", "Time that the model itself took")
        self._batch_rows = Histogram(
            "inflight_server_batch_rows",
            "Rows that were predicted at once",
            buckets=_ROWS,
            registry=self.registry,
        )
        self.shed = Counter(
            "inflight_server_shed", "Requests refused or dropped uncomputed", ["reason"], registry=self.registry
        )
        self.cancelled = Counter(
            "inflight_server_cancelled", "Requests whose client left before the answer", registry=self.registry
        )
        self._requests = Histogram(
            "inflight_server_request_seconds",
            "From a prediction request's headers to its answer, by status code (499: the client left)",
            ["code"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._by_code: dict[int, Histogram] = {}
        self.cold_start = Gauge(
            "inflight_server_cold_start_seconds",
            "Seconds that each phase of the start took; ready: from process start to readiness",
            ["phase"],
            registry=self.registry,
        )

    def request(self, status: int, seconds: float) -> None:
        """Count one prediction request."""
        histogram = self._by_code.get(status)
        if histogram is None:
            histogram = self._by_code[status] = self._requests.labels(str(status))
        histogram.observe(seconds)

    def ran(self, rows: int, seconds: float) -> None:
        """Count one run of the model."""
        self._service.observe(seconds)
        self._batch_rows.observe(rows)

    def watch(self, in_flight: Callable[[], int], queue_depth: Callable[[], int]) -> None:
        """Read the two gauges from where they are true, when somebody asks."""
        self._in_flight.set_function(in_flight)
        self._queue_depth.set_function(queue_depth)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"inflight_server_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"inflight_server_{name}", text, buckets=_SECONDS, registry=self.registry)
