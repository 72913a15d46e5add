"""Traces: what a request's spans say, which are sampled, and that sending them never holds anybody up."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from model_server import tracing
from model_server.telemetry import Telemetry
from model_server.tracing import Trace, Tracing

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {b"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01".encode()}
UNSAMPLED = {b"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-00".encode()}


class Receiver(SpanExporter):
    """Takes spans, once it may; `answer` is what it says to them."""

    def __init__(self, answer: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.spans: list[ReadableSpan] = []
        self.open = threading.Event()
        self.open.set()
        self._answer = answer

    def export(self, spans: Any) -> SpanExportResult:
        assert self.open.wait(10)
        self.spans.extend(spans)
        return self._answer


@contextmanager
def traced(receiver: Receiver, telemetry: Telemetry | None = None, **environ: str) -> Iterator[Tracing]:
    found = Tracing(receiver, telemetry or Telemetry(), environ, {"inflight.model": "digits"})
    yield found
    receiver.open.set()
    found.stop()


def begun(tracing: Tracing, headers: Mapping[bytes, bytes] = SAMPLED) -> Trace:
    trace = tracing.begin("POST /v2/models/{model}/infer", headers)
    assert trace is not None
    return trace


def by_name(receiver: Receiver) -> dict[str, ReadableSpan]:
    return {span.name: span for span in receiver.spans}


def computed(trace: Trace) -> None:
    trace.entered()
    time.sleep(0.002)
    started = time.monotonic()
    time.sleep(0.002)
    trace.predicted(started)


def hit(trace: Trace) -> None:
    trace.entered()
    trace.predicted(None)


@pytest.mark.parametrize(
    ("course", "status", "phases"),
    [
        pytest.param(computed, 200, ["receive", "queue", "predict", "encode"], id="computed"),
        pytest.param(hit, 200, ["receive", "queue", "encode"], id="answered without a prediction"),
        pytest.param(Trace.entered, 499, ["receive", "queue"], id="left while it waited"),
        pytest.param(lambda _trace: None, 429, ["receive"], id="refused on arrival"),
    ],
)
def test_a_requests_phases_follow_each_other_without_a_gap(
    course: Callable[[Trace], None], status: int, phases: list[str]
) -> None:
    with traced(receiver := Receiver()) as tracing:
        trace = begun(tracing)
        course(trace)
        trace.end(status, **{"inflight.request_id": "r-1", "inflight.cache": ""})
    *inner, request = receiver.spans
    assert [span.name for span in inner] == phases
    assert request.attributes == {"http.response.status_code": status, "inflight.request_id": "r-1"}
    edges = [inner[0].start_time, *(span.end_time for span in inner)]
    assert [span.start_time for span in inner] == edges[:-1]
    assert edges == sorted(edges)  # type: ignore[type-var]
    assert (request.end_time, request.resource.attributes["inflight.model"]) == (edges[-1], "digits")
    assert all(span.parent and span.parent.span_id == request.context.span_id for span in inner)


def test_a_trace_goes_on_that_the_client_began() -> None:
    with traced(receiver := Receiver()) as tracing:
        trace = begun(tracing, {**SAMPLED, b"tracestate": b"vendor=1"})
        trace.end(200)
    request = receiver.spans[-1]
    assert trace.trace_id == TRACE_ID
    assert f"{request.context.trace_id:032x}" == TRACE_ID
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == SPAN_ID
    assert request.context.trace_state.get("vendor") == "1"


@pytest.mark.parametrize("broken", [b"", b"nonsense", b"\xff" * 55, b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"])
def test_a_broken_traceparent_begins_a_trace_of_its_own(broken: bytes) -> None:
    with traced(receiver := Receiver()) as tracing:
        begun(tracing, {b"traceparent": broken}).end(200)
    assert receiver.spans[-1].parent is None


@pytest.mark.parametrize(
    ("sampler", "argument", "headers", "sampled"),
    [
        pytest.param(None, None, UNSAMPLED, False, id="by default the client decides"),
        pytest.param(None, None, {}, True, id="and without one every request is traced"),
        pytest.param("parentbased_traceidratio", "0", {}, False, id="none of those without"),
        pytest.param("parentbased_traceidratio", "0", SAMPLED, True, id="but what the client samples"),
        pytest.param("always_off", None, SAMPLED, False, id="never"),
    ],
)
def test_opentelemetrys_variables_decide_what_is_sampled(
    monkeypatch: pytest.MonkeyPatch,
    sampler: str | None,
    argument: str | None,
    headers: dict[bytes, bytes],
    sampled: bool,
) -> None:
    for name, value in (("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)):
        if value is not None:
            monkeypatch.setenv(name, value)
    with traced(Receiver()) as tracing:
        assert (tracing.begin("x", headers) is not None) == sampled


def test_a_receiver_that_hangs_holds_nobody_up_and_what_finds_no_room_is_counted() -> None:
    telemetry, receiver = Telemetry(), Receiver()
    receiver.open.clear()
    limits = {"OTEL_BSP_MAX_QUEUE_SIZE": "10", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "5"}
    with traced(receiver, telemetry, **limits) as tracing:
        begin = time.monotonic()
        for _ in range(50):
            begun(tracing).end(200)
        assert time.monotonic() - begin < 0.5
    dropped = telemetry.spans_dropped.labels("queue_full").value
    assert dropped > 0
    assert len(receiver.spans) + dropped == 100  # a request and its phase each


def test_what_the_receiver_refuses_is_counted() -> None:
    telemetry = Telemetry()
    with traced(Receiver(SpanExportResult.FAILURE), telemetry) as tracing:
        begun(tracing).end(200)
    assert telemetry.spans_dropped.labels("export_failed").value == 2


def test_full_batches_are_sent_at_once() -> None:
    limits = {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2", "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    with traced(receiver := Receiver(), **limits) as tracing:
        begun(tracing).end(200)
        deadline = time.monotonic() + 5
        while len(receiver.spans) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.002)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_traces_are_made_where_an_endpoint_is_given(environ: dict[str, str], expected: bool) -> None:
    assert tracing.wanted(environ) == expected


def test_without_an_endpoint_nothing_is_imported() -> None:
    code = (
        "import sys; from model_server import app, tracing; from model_server.telemetry import Telemetry; "
        "assert tracing.start(Telemetry(), {}, {}) is None; "
        "assert not [name for name in sys.modules if name.startswith(('opentelemetry', 'grpc'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
