"""`helm test`'s checks: each against a server that is right, and one that is not."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edge_tokens import certificate
from inflight_operator import selftest

OURS = json.dumps({"code": "not_found", "status": 404}).encode()


@contextmanager
def answering(status: int, body: bytes, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "passes", "words"),
    [
        pytest.param(404, OURS, True, "has its configuration from the operator", id="our own 404"),
        pytest.param(404, b"<html>not here</html>", False, "FAILED", id="somebody else's 404"),
        pytest.param(503, b'{"code": "no_endpoint"}', False, "answered 503, not our own 404", id="not programmed"),
        pytest.param(200, b"{}", False, "somebody else listens there", id="somebody else's service"),
    ],
)
def test_the_router_is_known_by_what_it_says_of_nobodys_model(status: int, body: bytes, passes: bool, words: str):
    said: list[str] = []
    with answering(status, body) as url:
        assert selftest.run(selftest.checks({"INFLIGHT_ROUTER_URL": url}), 0.0, said.append) is passes
    assert words in said[0]


def test_a_router_that_serves_https_only_is_asked_so_whoever_its_certificate_is_for(tmp_path):
    file = certificate(tmp_path, "models.example")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file, file.with_suffix(".key"))
    with answering(404, OURS, context) as url:
        assert selftest.run(selftest.checks({"INFLIGHT_ROUTER_URL": url}), 0.0)


def test_nobody_there_is_told_with_the_check_that_failed():
    said: list[str] = []
    assert not selftest.run(selftest.checks({"INFLIGHT_ROUTER_URL": "http://127.0.0.1:9"}), 0.0, said.append)
    assert said[0].startswith("router: FAILED: ")


def test_the_metrics_api_is_asked_only_where_there_is_one():
    assert list(selftest.checks({"INFLIGHT_ROUTER_URL": "http://r"})) == ["router"]
    both = {"INFLIGHT_ROUTER_URL": "http://r", "INFLIGHT_METRICS_API_URL": "https://o", "INFLIGHT_CA_FILE": "/none"}
    assert list(selftest.checks(both)) == ["router", "metrics API"]


def test_a_plain_server_is_no_metrics_api_of_ours(tmp_path):
    said: list[str] = []
    with answering(200, b"ok") as url:
        there = {"INFLIGHT_METRICS_API_URL": url.replace("http:", "https:"), "INFLIGHT_CA_FILE": str(tmp_path / "none")}
        found = selftest.checks({"INFLIGHT_ROUTER_URL": url, **there})
        assert not selftest.run({"metrics API": found["metrics API"]}, 0.0, said.append)
    assert said[0].startswith("metrics API: FAILED: ")
