"""The server's metrics, by the names of the contract. It counts; it decides nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from model_server import instruments
from model_server.instruments import Counter, Gauge, Histogram, Labelled

_SECONDS: Final = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_PREFIX: Final = "inflight_server_"
_MAX_EXEMPLAR: Final = 128
"""Characters of an exemplar's label and value together, by the OpenMetrics specification."""


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
        self._service = Histogram(_SECONDS)
        self._batch_rows = Histogram(_ROWS)
        self._requests = Labelled(_seconds)
        self._by_status: dict[int, Histogram] = {}
        self._in_flight: Callable[[], int] = int
        self._queue_depth: Callable[[], int] = int
        self._cache_bytes: Callable[[], int] = int
        self._cache_entries: Callable[[], int] = int
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_Exposed(self._families))

    def request(self, status: int, seconds: float, request_id: str = "", trace_id: str = "") -> None:
        """Count one prediction request; by its ids it can be found in the logs and traces."""
        histogram = self._by_status.get(status)
        if histogram is None:
            histogram = self._by_status[status] = self._requests.labels(str(status))
        if trace_id:
            histogram.observe_named(seconds, "trace_id", trace_id)
        elif request_id:
            histogram.observe_named(seconds, "request_id", request_id)
        else:
            histogram.observe(seconds)

    def ran(self, rows: int, seconds: float) -> None:
        """Count one run of the model."""
        self._service.observe(seconds)
        self._batch_rows.observe(rows)

    def watch(self, in_flight: Callable[[], int], queue_depth: Callable[[], int]) -> None:
        """Read the two gauges from where they are true, when somebody asks."""
        self._in_flight = in_flight
        self._queue_depth = queue_depth

    def watch_cache(self, held_bytes: Callable[[], int], entries: Callable[[], int]) -> None:
        """The same for the cache of answers."""
        self._cache_bytes = held_bytes
        self._cache_entries = entries

    def _families(self) -> Iterator[Metric]:
        yield _gauge("requests_in_flight", "Requests running or queued, refused ones not included", self._in_flight())
        yield _gauge("queue_depth", "Requests waiting for a free slot", self._queue_depth())
        yield _histogram("queue_wait_seconds", "Wait for a free slot, of requests that got one", self.queue_wait)
        yield _histogram("service_seconds", "Time that the model itself took", self._service)
        yield _histogram("batch_rows", "Rows that were predicted at once", self._batch_rows)
        yield _counter("shed", "Requests refused or dropped uncomputed, by reason", self.shed, "reason")
        yield _counter("cancelled", "Requests whose client left before the answer", self.cancelled)
        yield _counter("worker_restarts", "Worker processes that were replaced", self.worker_restarts)
        yield _counter("cache_requests", "Requests by what the cache had for them", self.cache_requests, "result")
        yield _counter("cache_evictions", "Answers dropped to make room", self.cache_evictions)
        text = "Failures of the shared cache: late answers, broken exchanges, values that are none of ours"
        yield _counter("cache_shared_errors", text, self.cache_shared_errors)
        yield _gauge("cache_bytes", "Bytes of the answers that the cache holds", self._cache_bytes())
        yield _gauge("cache_entries", "Answers that the cache holds", self._cache_entries())
        text = "From a prediction request's headers to its answer, by status code (499: the client left)"
        yield _histogram("request_seconds", text, self._requests, "code")
        text = "Spans of traces that were not sent, by reason"
        yield _counter("spans_dropped", text, self.spans_dropped, "reason")
        text = "Seconds that each phase of the start took; ready: from process start to readiness"
        family = GaugeMetricFamily(f"{_PREFIX}cold_start_seconds", text, labels=["phase"])
        for phase, gauge in tuple(self.cold_start.children.items()):
            family.add_metric([phase], gauge.value)
        yield family


class _Exposed(Collector):
    """Reads the instruments when a scrape comes."""

    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()


def _seconds() -> Histogram:
    return Histogram(_SECONDS)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value)


def _counter(name: str, text: str, counted: Counter | Labelled[Counter], label: str = "") -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=[label] if label else [])
    for labels, counter in _children(counted):
        family.add_metric(labels, counter.value)
    return family


def _histogram(name: str, text: str, observed: Histogram | Labelled[Histogram], label: str = "") -> Metric:
    family = HistogramMetricFamily(_PREFIX + name, text, labels=[label] if label else [])
    for labels, histogram in _children(observed):
        family.add_metric(labels, [_bucket(*bucket) for bucket in histogram.buckets()], histogram.sum)
    return family


def _children(of: Counter | Histogram | Labelled[Any]) -> Iterable[tuple[list[str], Any]]:
    """(label values, instrument)."""
    if isinstance(of, Labelled):
        return [([value], child) for value, child in of.children.items()]
    return [([], of)]


def _bucket(bound: float, count: int, named: instruments.Exemplar | None) -> tuple[Any, ...]:
    text = "+Inf" if math.isinf(bound) else str(float(bound))
    if named is None or len(named.label) + len(named.id) > _MAX_EXEMPLAR:
        return text, count
    return text, count, Exemplar({named.label: named.id}, named.value, named.at)
