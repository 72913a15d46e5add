"""OpenTelemetry traces of prediction requests, when OTEL_EXPORTER_OTLP_ENDPOINT is set; nothing is imported otherwise.

A request's spans are made when it ends, from the times that it passed: an unsampled request costs one look at its
traceparent. Which are sampled, where they are sent and what they say of this process is configured by OpenTelemetry's
own variables. It tells; it decides nothing, and whoever doesn't take the spans loses them.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from model_server.telemetry import Telemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_log = structlog.get_logger()


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables ask for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(environ.get(name) for name in _ENDPOINTS)


def start(telemetry: Telemetry, environ: Mapping[str, str], about: Mapping[str, str]) -> Tracing | None:
    """Traces sent where `environ` says; None where they aren't wanted, or OpenTelemetry isn't installed.

    `about`: attributes of this process.
    """
    if not wanted(environ):
        return None
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        _log.warning("no traces", reason="OpenTelemetry isn't installed: install inflight-model-server[tracing]")
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return Tracing(OTLPSpanExporter(), telemetry, environ, about)


class Tracing:
    """Makes the traces of one server and sends them from a thread of its own."""

    def __init__(
        self, exporter: SpanExporter, telemetry: Telemetry, environ: Mapping[str, str], about: Mapping[str, str]
    ) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        name = {} if "OTEL_SERVICE_NAME" in environ else {"service.name": "inflight-model-server"}
        provider = TracerProvider(resource=Resource.create({**name, **about}), shutdown_on_exit=False)
        self._outbox = _Outbox(exporter, telemetry, environ)
        provider.add_span_processor(self._outbox)  # type: ignore[arg-type]  # what it calls of a SpanProcessor is there
        self._tracer = provider.get_tracer("model_server")
        self._extract: Callable[[Mapping[str, str]], Any] = TraceContextTextMapPropagator().extract

    def begin(self, name: str, headers: Mapping[bytes, bytes]) -> Trace | None:
        """The trace of a request that has come, part of the one that its traceparent names; None: not sampled."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        parent = None
        if (given := headers.get(b"traceparent")) is not None:
            carrier = {"traceparent": given.decode("latin-1")}
            if (state := headers.get(b"tracestate")) is not None:
                carrier["tracestate"] = state.decode("latin-1")
            parent = self._extract(carrier)
        span = self._tracer.start_span(name, parent, SpanKind.SERVER)
        return Trace(self._tracer, span) if span.is_recording() else None

    def stop(self) -> None:
        """Send what waits, for 2 seconds at most."""
        self._outbox.shutdown()


class Trace:
    """One request that is traced: told as it goes, made into spans when it ends."""

    __slots__ = ("_began", "_ended", "_entered", "_epoch", "_span", "_started", "_tracer", "trace_id")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self._epoch = time.time_ns() - time.monotonic_ns()
        self._began = time.monotonic()
        self._entered = self._started = self._ended = 0.0
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    def entered(self) -> None:
        """Read and checked: it goes to the queue."""
        self._entered = time.monotonic()

    def predicted(self, started: float | None) -> None:
        """It comes back; `started`: when its prediction began, on time.monotonic's clock, None where none did."""
        self._ended = time.monotonic()
        self._started = self._ended if started is None else started

    def end(self, status: int, **attributes: str) -> None:
        """Answered, with an HTTP status."""
        from opentelemetry.trace import Status, StatusCode, set_span_in_context  # noqa: PLC0415

        now = time.monotonic()
        within = set_span_in_context(self._span)
        for name, start, end in self._phases(now):
            self._tracer.start_span(name, within, start_time=self._nanoseconds(start)).end(self._nanoseconds(end))
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attributes({name: value for name, value in attributes.items() if value})
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(self._nanoseconds(now))

    def _phases(self, now: float) -> list[tuple[str, float, float]]:
        if not self._entered:
            return [("receive", self._began, now)]
        phases = [("receive", self._began, self._entered)]
        if not self._ended:  # the client left
            return [*phases, ("queue", self._entered, now)]
        started = max(self._entered, self._started)
        phases.append(("queue", self._entered, started))
        if started < self._ended:
            phases.append(("predict", started, self._ended))
        return [*phases, ("encode", self._ended, now)]

    def _nanoseconds(self, seconds: float) -> int:
        return self._epoch + int(seconds * 1e9)


class _Outbox:
    """A SpanProcessor: spans wait here for the thread that sends them; too many, or refused ones, are dropped.

    OpenTelemetry's own doesn't count what it drops. It listens to the same variables.
    """

    def __init__(self, exporter: SpanExporter, telemetry: Telemetry, environ: Mapping[str, str]) -> None:
        self._exporter = exporter
        self._room = int(environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or 2048)
        self._batch = int(environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or 512)
        self._delay = int(environ.get("OTEL_BSP_SCHEDULE_DELAY") or 5000) / 1000
        self._full = telemetry.spans_dropped.labels("queue_full")
        self._refused = telemetry.spans_dropped.labels("export_failed")
        self._spans: deque[Any] = deque()
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._send, name="traces", daemon=True)
        self._thread.start()

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Nothing yet."""

    def _on_ending(self, span: Any) -> None:
        """Nothing yet."""

    def on_end(self, span: Any) -> None:
        """Called on the event loop: it must not wait for anything."""
        if len(self._spans) >= self._room:
            self._full.inc()
            return
        self._spans.append(span)
        if len(self._spans) >= self._batch and not self._wake.is_set():
            self._wake.set()

    def shutdown(self, seconds: float = 2.0) -> None:
        """Send what waits."""
        self._stopped = True
        self._wake.set()
        self._thread.join(seconds)
        self._exporter.shutdown()

    def _send(self) -> None:
        while not self._stopped or self._spans:
            if len(self._spans) < self._batch and not self._stopped:
                self._wake.wait(self._delay)
                self._wake.clear()
            batch = [self._spans.popleft() for _ in range(min(self._batch, len(self._spans)))]
            if batch:
                self._export(batch)

    def _export(self, batch: list[Any]) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415

        try:
            sent = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception as error:
            _log.warning("traces can't be sent", exc_info=error)
            sent = False
        if not sent:
            self._refused.inc(len(batch))
