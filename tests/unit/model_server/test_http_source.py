"""Models over http(s): redirects, answers that pass and that don't, and connections that break off."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from model_server.errors import LoadFailure, Reason
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage import addresses
from model_server.storage.fetching import fetch

MODEL = b"a model of some bytes" * 1000
SHA = hashlib.sha256(MODEL).hexdigest()

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def whole(handler: http.server.BaseHTTPRequestHandler) -> None:
    status(200, MODEL)(handler)


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in {"content_length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def broken_off(handler: http.server.BaseHTTPRequestHandler) -> None:
    status(200, MODEL[:100], content_length=str(len(MODEL)))(handler)
    handler.close_connection = True


class Store:
    """An HTTP server that answers with `answers` in turn, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                answers[min(len(outer.requests), len(answers)) - 1](self)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/models/digits.onnx"


@contextmanager
def store(*answers: Answer) -> Iterator[Store]:
    running = Store(*answers)
    thread = threading.Thread(target=running.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield running
    finally:
        running.server.shutdown()
        thread.join()
        running.server.server_close()


@pytest.fixture(autouse=True)
def loopback_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's stores are on this machine; that they would be refused is tested by itself."""
    monkeypatch.setattr(addresses, "forbidden", lambda _address: False)


def fetched(tmp_path: Path, url: str, sha256: str = SHA, **storage: Any) -> Any:
    slept: list[float] = []
    return fetch(ModelSettings("digits", url, sha256), StorageSettings(**storage), tmp_path, slept.append)


def refusal(tmp_path: Path, url: str, sha256: str = SHA, **storage: Any) -> LoadFailure:
    with pytest.raises(LoadFailure) as refused:
        fetched(tmp_path, url, sha256, **storage)
    assert not (tmp_path / "fetched").exists() or refused.value.reason is Reason.DIGEST_MISMATCH
    return refused.value


def test_a_model_is_fetched_and_keeps_its_name(tmp_path: Path) -> None:
    with store(whole) as running:
        found = fetched(tmp_path, running.url)
    assert found.path.read_bytes() == MODEL
    assert (found.path.name, found.digest) == ("digits.onnx", SHA)


@pytest.mark.parametrize("passing", [status(503), status(429), broken_off], ids=["503", "429", "broken off"])
def test_what_may_pass_is_tried_again(tmp_path: Path, passing: Answer) -> None:
    with store(passing, passing, whole) as running:
        assert fetched(tmp_path, running.url).digest == SHA
        assert len(running.requests) == 3


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_what_will_not_pass_is_told_at_once(tmp_path: Path, code: int) -> None:
    with store(status(code)) as running:
        failure = refusal(tmp_path, running.url)
        assert len(running.requests) == 1
    assert failure.reason is Reason.FETCH_FAILED
    assert str(code) in failure.message


def test_a_refused_connection_is_told_after_a_few_attempts(tmp_path: Path) -> None:
    with store(whole) as running:
        pass
    failure = refusal(tmp_path, running.url)
    assert failure.reason is Reason.FETCH_FAILED
    assert "failed 4 times" in failure.message


def test_another_digest_is_refused(tmp_path: Path) -> None:
    with store(whole) as running:
        assert refusal(tmp_path, running.url, "0" * 64).reason is Reason.DIGEST_MISMATCH


def test_more_bytes_than_allowed_are_not_read(tmp_path: Path) -> None:
    with store(whole) as running:
        assert "larger than 1000 bytes" in refusal(tmp_path, running.url, max_bytes=1000).message


def test_a_compressed_answer_is_not_taken_for_the_model(tmp_path: Path) -> None:
    with store(status(200, MODEL, content_encoding="gzip")) as running:
        assert "compressed" in refusal(tmp_path, running.url).message


def test_redirects_are_followed_without_taking_anything_along(tmp_path: Path) -> None:
    with store(whole) as target, store(status(302, location=target.url + "?token=1")) as first:
        assert fetched(tmp_path, first.url).digest == SHA
        path, headers = target.requests[0]
    assert path.endswith("?token=1")
    assert set(headers) == {"host", "user-agent", "accept-encoding", "range"}


def test_more_than_three_redirects_are_not_followed(tmp_path: Path) -> None:
    with store(status(302, location="/again")) as running:
        assert "redirects more than 3 times" in refusal(tmp_path, running.url).message
        assert len(running.requests) == 4


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/y", "http://user:pw@host/", "/a/%2e%2e/b"])
def test_a_redirect_is_held_to_the_same_rules(tmp_path: Path, location: str) -> None:
    with store(status(302, location=location)) as running:
        assert "redirects to" in refusal(tmp_path, running.url).message


def test_a_redirect_to_a_forbidden_address_is_not_connected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store(whole) as inside, store(status(302, location=inside.url.replace("127.0.0.1", "127.0.0.2"))) as outside:
        monkeypatch.setattr(addresses, "forbidden", lambda address: str(address) == "127.0.0.2")
        assert "not fetched from loopback" in refusal(tmp_path, outside.url).message
        assert inside.requests == []
