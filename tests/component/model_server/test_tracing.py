"""Traces of a real server process, sent to a collector that speaks OTLP over HTTP."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from model_process import free_port, started

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # tritonclient's messages were made for an older protobuf
    import tritonclient.grpc as triton

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACED = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
PHASES = ["receive", "queue", "predict", "encode"]


@contextmanager
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ExportTraceServiceRequest]]:
    """An OTLP/HTTP collector that the servers started meanwhile send to."""
    received: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield received
        server.shutdown()
        thread.join()


def test_requests_over_http_and_grpc_are_traced_into_their_clients_traces(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        collector(monkeypatch) as received,
        started("--model", f"digits={onnx_file}", GRPC_PORT=free_port(), REVISION="r-1") as running,
    ):
        url = running.url + "/v2/models/digits/infer"
        assert httpx.post(url, json=BODY, headers=TRACED).status_code == 200
        with triton.InferenceServerClient(f"127.0.0.1:{running.wait_for('listening for gRPC')['port']}") as asked:
            tensor = triton.InferInput("x", [1, 2], "FP32")
            tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
            asked.infer("digits", [tensor], headers=TRACED)
        accept = {"accept": "application/openmetrics-text"}
        assert f'trace_id="{TRACE_ID}"' in httpx.get(running.metrics_url, headers=accept).text
        assert running.stop() == 0  # it sends what waits before it ends
    resources = [resource for request in received for resource in request.resource_spans]
    about = {pair.key: pair.value.string_value for resource in resources for pair in resource.resource.attributes}
    assert (about["service.name"], about["inflight.revision"]) == ("inflight-model-server", "r-1")
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}
    assert [span.name for span in spans] == [
        *PHASES,
        "POST /v2/models/{model}/infer",
        *PHASES,
        "inference.GRPCInferenceService/ModelInfer",
    ]


def test_a_collector_that_is_away_disturbs_nobody(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with started("--model", f"digits={onnx_file}") as running:
        for _ in range(20):
            assert httpx.post(running.url + "/v2/models/digits/infer", json=BODY).status_code == 200
        assert running.stop() == 0


def test_an_endpoint_without_opentelemetry_is_told_and_serves(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with started("--model", f"digits={onnx_file}", before="import sys; sys.modules['opentelemetry'] = None") as running:
        assert "tracing" in running.wait_for("no traces")["reason"]
        assert httpx.post(running.url + "/v2/models/digits/infer", json=BODY).status_code == 200
