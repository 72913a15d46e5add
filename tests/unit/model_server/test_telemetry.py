"""What is counted is what is exposed, by the names that dashboards and the autoscaler read."""

from __future__ import annotations

import math
import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as PrometheusHistogram
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from model_server.instruments import Histogram
from model_server.telemetry import Telemetry

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
BOUNDS = (0.001, 0.01, 0.1, 1.0)


@given(st.lists(st.one_of(st.sampled_from(BOUNDS), st.floats(0, 10)), max_size=30))
def test_a_histogram_has_the_buckets_of_prometheus_own(values: list[float]) -> None:
    ours = Histogram(BOUNDS)
    theirs = PrometheusHistogram("x", "x", buckets=BOUNDS, registry=CollectorRegistry())
    for value in values:
        ours.observe(value)
        theirs.observe(value)
    expected = [sample.value for sample in next(iter(theirs.collect())).samples if sample.name == "x_bucket"]
    assert [count for _, count, _ in ours.buckets()] == expected
    assert ours.sum == sum(values)


def scraped(telemetry: Telemetry) -> dict[str, Metric]:
    """Every family, as a strict reader of OpenMetrics understands the text."""
    from prometheus_client.exposition import choose_encoder

    encode, _ = choose_encoder(OPEN_METRICS)
    families = text_string_to_metric_families(encode(telemetry.registry).decode())
    return {family.name.removeprefix("inflight_server_"): family for family in families}


def test_everything_is_there_before_anything_has_happened() -> None:
    families = scraped(Telemetry())
    assert {
        "requests_in_flight",
        "queue_depth",
        "queue_wait_seconds",
        "service_seconds",
        "batch_rows",
        "shed",
        "cancelled",
        "worker_restarts",
        "request_seconds",
        "cold_start_seconds",
        "process_resident_memory_bytes",
    } <= set(families)


def test_what_was_counted_is_what_is_scraped() -> None:
    telemetry = Telemetry()
    telemetry.watch(lambda: 3, lambda: 2)
    for wait in (0.0, 0.02):
        telemetry.queue_wait.observe(wait)
    telemetry.ran(32, 0.013)
    telemetry.shed.labels("queue_full").inc()
    telemetry.shed.labels("queue_full").inc()
    telemetry.shed.labels("deadline").inc()
    telemetry.cancelled.inc()
    telemetry.worker_restarts.inc()
    telemetry.watch_cache(lambda: 4096, lambda: 2)
    telemetry.cache_requests.labels("hit").inc()
    telemetry.cache_evictions.inc()
    telemetry.cold_start.labels("fetch").set(1.5)
    telemetry.request(200, 0.5)
    telemetry.request(429, 0.001)
    telemetry.request(429, 0.001)
    expected = {
        ("requests_in_flight",): 3,
        ("queue_depth",): 2,
        ("queue_wait_seconds_count",): 2,
        ("queue_wait_seconds_sum",): 0.02,
        ("service_seconds_sum",): 0.013,
        ("batch_rows_count",): 1,
        ("batch_rows_sum",): 32,
        ("shed_total", "queue_full"): 2,
        ("shed_total", "deadline"): 1,
        ("cancelled_total",): 1,
        ("worker_restarts_total",): 1,
        ("cache_bytes",): 4096,
        ("cache_entries",): 2,
        ("cache_requests_total", "hit"): 1,
        ("cache_evictions_total",): 1,
        ("cold_start_seconds", "fetch"): 1.5,
        ("request_seconds_count", "200"): 1,
        ("request_seconds_count", "429"): 2,
    }
    found = {
        (sample.name.removeprefix("inflight_server_"), *sample.labels.values()): sample.value
        for family in scraped(telemetry).values()
        for sample in family.samples
    }
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("request_id", "trace_id", "expected"),
    [
        pytest.param("r-1", "", {"request_id": "r-1"}, id="the request's id"),
        pytest.param("r-1", "ab" * 16, {"trace_id": "ab" * 16}, id="the trace's, where there is one"),
        pytest.param("r" * 128, "", None, id="none that OpenMetrics allows no room for"),
        pytest.param("", "", None, id="none where there is no id"),
    ],
)
def test_a_duration_names_a_request_that_took_it(
    request_id: str, trace_id: str, expected: dict[str, str] | None
) -> None:
    telemetry, before = Telemetry(), time.time()
    telemetry.request(200, 0.003, request_id, trace_id)
    (bucket,) = [s for s in scraped(telemetry)["request_seconds"].samples if s.labels.get("le") == "0.005"]
    if expected is None:
        assert bucket.exemplar is None
    else:
        assert (bucket.exemplar.labels, bucket.exemplar.value) == (expected, 0.003)
        assert before <= float(bucket.exemplar.timestamp) <= time.time()


def test_the_latest_of_a_bucket_is_its_exemplar() -> None:
    histogram = Histogram(BOUNDS)
    for name in ("first", "second"):
        histogram.observe_named(5.0, "request_id", name)
    bound, count, exemplar = histogram.buckets()[-1]
    assert (bound, count) == (math.inf, 2)
    assert exemplar is not None
    assert exemplar.id == "second"


def counted(status: int, seconds: float, named: str = "") -> Telemetry:
    telemetry = Telemetry()
    telemetry.request(status, seconds, named)
    telemetry.shed.labels("queue_full").inc(2)
    telemetry.ran(3, 0.02)
    telemetry.watch(lambda: 4, lambda: 1)
    return telemetry


def test_a_server_of_several_processes_tells_their_sums() -> None:
    first, second = counted(200, 0.02, "one"), counted(503, 0.3, "two")
    first.others = lambda: [orjson.loads(orjson.dumps(second.state()))]
    told = scraped(first)
    values = {(s.name, *s.labels.items()): s.value for family in told.values() for s in family.samples}
    assert values["inflight_server_request_seconds_count", ("code", "200")] == 1
    assert values["inflight_server_request_seconds_count", ("code", "503")] == 1
    assert values["inflight_server_shed_total", ("reason", "queue_full")] == 4
    assert values["inflight_server_batch_rows_sum",] == 6
    assert values["inflight_server_requests_in_flight",] == 8
    assert values["inflight_server_queue_depth",] == 2


def test_what_a_process_counted_stays_when_it_has_ended() -> None:
    first, second = counted(200, 0.02), counted(200, 0.3)
    first.add(second.state())
    values = {s.name: s.value for family in scraped(first).values() for s in family.samples}
    assert values["inflight_server_request_seconds_count"] == 2
    assert values["inflight_server_requests_in_flight"] == 4  # the other's are over


@given(st.lists(st.floats(0, 10), max_size=20), st.lists(st.floats(0, 10), max_size=20))
def test_added_histograms_are_the_histogram_of_all(mine: list[float], theirs: list[float]) -> None:
    one, other, both = Histogram(BOUNDS), Histogram(BOUNDS), Histogram(BOUNDS)
    for value in mine:
        one.observe_named(value, "request_id", "a")
        both.observe(value)
    for value in theirs:
        other.observe(value)
        both.observe(value)
    one.add(orjson.loads(orjson.dumps(other.state())))
    assert [bucket[:2] for bucket in one.buckets()] == [bucket[:2] for bucket in both.buckets()]
    assert one.sum == pytest.approx(both.sum)
