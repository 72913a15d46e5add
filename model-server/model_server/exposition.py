"""The server's metrics by the names of the contract, from its counts. The only module that knows prometheus_client."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from model_server import instruments
from model_server.instruments import Counter, Histogram, Labelled

if TYPE_CHECKING:
    from model_server.telemetry import Telemetry

_PREFIX: Final = "inflight_server_"
_MAX_EXEMPLAR: Final = 128
"""Characters of an exemplar's label and value together, by the OpenMetrics specification."""


def registry(telemetry: Telemetry) -> CollectorRegistry:
    """What a scrape reads: `telemetry`, and what the process uses."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    made.register(_Exposed(lambda: _families(telemetry.together())))
    return made


def encoded(registry: CollectorRegistry, accept: str) -> tuple[str, bytes]:
    """(content type, body) of a scrape that accepts these formats."""
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


def _families(telemetry: Telemetry) -> Iterator[Metric]:
    yield _gauge("requests_in_flight", "Requests running or queued, refused ones not included", telemetry.in_flight())
    yield _gauge("queue_depth", "Requests waiting for a free slot", telemetry.queue_depth())
    yield _histogram("queue_wait_seconds", "Wait for a free slot, of requests that got one", telemetry.queue_wait)
    yield _histogram("service_seconds", "Time that the model itself took", telemetry.service)
    yield _histogram("batch_rows", "Rows that were predicted at once", telemetry.batch_rows)
    yield _counter("shed", "Requests refused or dropped uncomputed, by reason", telemetry.shed, "reason")
    yield _counter("cancelled", "Requests whose client left before the answer", telemetry.cancelled)
    yield _counter("worker_restarts", "Worker processes that were replaced", telemetry.worker_restarts)
    yield _counter("cache_requests", "Requests by what the cache had for them", telemetry.cache_requests, "result")
    yield _counter("cache_evictions", "Answers dropped to make room", telemetry.cache_evictions)
    text = "Failures of the shared cache: late answers, broken exchanges, values that are none of ours"
    yield _counter("cache_shared_errors", text, telemetry.cache_shared_errors)
    yield _gauge("cache_bytes", "Bytes of the answers that the cache holds", telemetry.cache_bytes())
    yield _gauge("cache_entries", "Answers that the cache holds", telemetry.cache_entries())
    text = "From a prediction request's headers to its answer, by status code (499: the client left)"
    yield _histogram("request_seconds", text, telemetry.requests, "code")
    text = "Spans of traces that were not sent, by reason"
    yield _counter("spans_dropped", text, telemetry.spans_dropped, "reason")
    text = "Seconds that each phase of the start took; ready: from process start to readiness"
    family = GaugeMetricFamily(f"{_PREFIX}cold_start_seconds", text, labels=["phase"])
    for phase, gauge in tuple(telemetry.cold_start.children.items()):
        family.add_metric([phase], gauge.value)
    yield family


class _Exposed(Collector):
    """Reads the instruments when a scrape comes."""

    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()


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
