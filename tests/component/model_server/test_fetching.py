"""Large models over real connections: in pieces, and what happens when servers and networks fail in between."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_server.errors import LoadFailure, Reason
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage.fetching import Fetched, fetch
from model_server.storage.remote import PIECE_BYTES
from model_store import Asked, FileServer, Handler, begins_at, certificate, first_time, send, serving, slowly

PIECES = 5
SIZE = (PIECES - 1) * PIECE_BYTES + 12_345
CONTENT = os.urandom(SIZE)
OTHER = os.urandom(SIZE)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer(CONTENT)) as running:
        yield running


def fetched(server: FileServer, tmp_path: Path, sha256: str | None = None, **storage: Any) -> Fetched:
    """The model, with its digest given; `local_files` because the store is on this machine."""
    model = ModelSettings("digits", server.url, server.sha256 if sha256 is None else sha256, local_files=True)
    found = fetch(model, StorageSettings(**storage), tmp_path, lambda seconds: time.sleep(seconds / 50))
    assert hashlib.sha256(found.path.read_bytes()).hexdigest() == found.digest
    return found


def refusal(server: FileServer, tmp_path: Path, sha256: str | None = None, **storage: Any) -> LoadFailure:
    with pytest.raises(LoadFailure) as refused:
        fetched(server, tmp_path, sha256, **storage)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [], "something was left behind"
    return refused.value


def test_a_large_model_comes_over_several_connections_each_byte_once(server: FileServer, tmp_path: Path) -> None:
    assert fetched(server, tmp_path).digest == server.sha256
    assert server.sent == SIZE
    assert server.most > 1
    assert sorted(asked.range or () for asked in server.requests) == [
        (start, min(start + PIECE_BYTES, SIZE) - 1 if start else PIECE_BYTES - 1)
        for start in range(0, SIZE, PIECE_BYTES)
    ]
    assert {asked.headers.get("if-range") for asked in server.requests} == {None, '"one"'}


def test_a_setting_bounds_the_connections(server: FileServer, tmp_path: Path) -> None:
    fetched(server, tmp_path, connections=1)
    assert (server.most, server.sent) == (1, SIZE)


@pytest.mark.parametrize("piece", [0, 2, PIECES - 1], ids=["the first piece", "a middle one", "the last one"])
def test_a_connection_that_is_cut_is_resumed_where_it_was_cut(server: FileServer, tmp_path: Path, piece: int) -> None:
    def cut(server: FileServer, asked: Asked, handler: Handler) -> bool:
        server.serve(asked, handler, cut_after=10_000)
        return True

    server.fault = first_time(cut, begins_at(piece * PIECE_BYTES))
    assert fetched(server, tmp_path).digest == server.sha256
    assert server.sent == SIZE, "bytes were fetched twice"
    resumed = next(asked for asked in server.requests if asked.range and asked.range[0] == piece * PIECE_BYTES + 10_000)
    assert resumed.headers["if-range"] == '"one"'


def test_many_cuts_are_survived_as_long_as_there_is_progress(server: FileServer, tmp_path: Path) -> None:
    def cut(server: FileServer, asked: Asked, handler: Handler) -> bool:
        server.serve(asked, handler, cut_after=1_500_000)
        return True

    server.fault = cut
    assert fetched(server, tmp_path, connections=1).digest == server.sha256
    assert len(server.requests) > PIECES * 4


def test_a_server_that_always_cuts_at_once_is_given_up(server: FileServer, tmp_path: Path) -> None:
    def cut(server: FileServer, asked: Asked, handler: Handler) -> bool:
        server.serve(asked, handler, cut_after=0 if asked.range and asked.range[0] else 1000)
        return True

    server.fault = cut
    with pytest.raises(LoadFailure, match="failed 4 times in a row"):
        fetched(server, tmp_path)


def test_a_slow_connection_is_left_and_another_takes_its_piece_over(server: FileServer, tmp_path: Path) -> None:
    server.fault = first_time(slowly, begins_at(2 * PIECE_BYTES))
    began = time.monotonic()
    assert fetched(server, tmp_path).digest == server.sha256
    assert time.monotonic() - began < 10
    assert server.sent < SIZE + 100, [(a.range, a.answered) for a in server.requests]


@pytest.mark.parametrize("honest", [True, False], ids=["answers 200 to If-Range", "ignores If-Range"])
def test_a_file_that_changes_meanwhile_is_fetched_anew_and_never_mixed(
    server: FileServer, tmp_path: Path, honest: bool
) -> None:
    def change(server: FileServer, asked: Asked, handler: Handler) -> bool:
        server.content, server.etag = OTHER, '"two"'
        return False

    server.if_range, server.fault = honest, first_time(change, begins_at(3 * PIECE_BYTES))
    assert fetched(server, tmp_path, hashlib.sha256(OTHER).hexdigest()).path.read_bytes() == OTHER


def test_a_file_that_shrinks_meanwhile_is_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    short = OTHER[: 2 * PIECE_BYTES]

    def change(server: FileServer, asked: Asked, handler: Handler) -> bool:
        server.content = short
        return False

    server.fault = first_time(change, begins_at(3 * PIECE_BYTES))
    assert fetched(server, tmp_path, hashlib.sha256(short).hexdigest()).path.read_bytes() == short


def test_a_file_that_changes_all_the_time_is_given_up(server: FileServer, tmp_path: Path) -> None:
    def change(server: FileServer, asked: Asked, handler: Handler) -> bool:
        if asked.range and asked.range[0]:
            server.etag = f'"{time.monotonic_ns()}"'
        return False

    server.fault = change
    assert "has another file now" in refusal(server, tmp_path).message


@pytest.mark.parametrize(
    "content_range",
    [
        pytest.param(f"bytes 0-{PIECE_BYTES - 1}/{SIZE}", id="another part"),
        pytest.param(f"bytes {PIECE_BYTES}-{2 * PIECE_BYTES - 1}/{SIZE + 1}", id="of a larger file"),
        pytest.param("bytes 0-10/9999", id="of another length than it has"),
        pytest.param("bytes 10-0/9999", id="that ends before it begins"),
        pytest.param("items 1", id="of something else"),
        pytest.param("", id="that doesn't say"),
    ],
)
def test_a_part_that_was_not_asked_for_is_not_taken(server: FileServer, tmp_path: Path, content_range: str) -> None:
    def other_part(server: FileServer, asked: Asked, handler: Handler) -> bool:
        server.serve(replace(asked, range=(0, PIECE_BYTES - 1)), handler, content_range=content_range)
        return True

    server.fault = first_time(other_part, begins_at(PIECE_BYTES))
    assert fetched(server, tmp_path).digest == server.sha256


def test_a_size_that_is_not_true_is_given_up(server: FileServer, tmp_path: Path) -> None:
    def longer(server: FileServer, asked: Asked, handler: Handler) -> bool:
        if asked.range and asked.range[0] == 0:
            server.serve(asked, handler, content_range=f"bytes 0-{PIECE_BYTES - 1}/{SIZE + PIECE_BYTES}")
            return True
        return False

    server.fault = longer
    assert "another" in refusal(server, tmp_path).message


def test_a_length_that_is_not_true_is_no_whole_file(server: FileServer, tmp_path: Path) -> None:
    def longer(server: FileServer, asked: Asked, handler: Handler) -> bool:
        server.serve(asked, handler, cut_after=SIZE, content_length=str(SIZE + 5))
        return True

    server.ranges, server.fault = False, longer
    assert f"sent {SIZE} of {SIZE + 5} bytes" in refusal(server, tmp_path).message


def test_a_server_without_ranges_sends_one_stream(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    assert fetched(server, tmp_path).digest == server.sha256
    assert len(server.requests) == 1


def test_a_server_without_ranges_begins_again_when_it_is_cut(server: FileServer, tmp_path: Path) -> None:
    def cut(server: FileServer, asked: Asked, handler: Handler) -> bool:
        server.serve(asked, handler, cut_after=PIECE_BYTES)
        return True

    server.ranges, server.fault = False, first_time(cut, lambda _asked: True)
    assert fetched(server, tmp_path).digest == server.sha256
    assert server.sent == PIECE_BYTES + SIZE


def test_a_server_that_refuses_ranges_is_asked_without(server: FileServer, tmp_path: Path) -> None:
    def refuse(server: FileServer, asked: Asked, handler: Handler) -> bool:
        if asked.range:
            send(handler, 416)
        return bool(asked.range)

    server.fault = refuse
    assert fetched(server, tmp_path).digest == server.sha256
    assert [bool(asked.range) for asked in server.requests] == [True, False]


def test_an_empty_file_is_an_empty_file(tmp_path: Path) -> None:
    with serving(FileServer(b"")) as server:
        assert fetched(server, tmp_path).path.read_bytes() == b""


def test_a_server_that_allows_one_connection_is_fetched_from_over_one(server: FileServer, tmp_path: Path) -> None:
    def busy(server: FileServer, asked: Asked, handler: Handler) -> bool:
        if server.now > 1:
            send(handler, 503)
            return True
        time.sleep(0.2)
        return False

    server.fault = busy
    assert fetched(server, tmp_path).digest == server.sha256


def test_a_compressed_part_is_not_taken(server: FileServer, tmp_path: Path) -> None:
    def gzipped(server: FileServer, asked: Asked, handler: Handler) -> bool:
        server.serve(asked, handler, content_encoding="gzip")
        return True

    server.fault = first_time(gzipped, begins_at(PIECE_BYTES))
    assert "compressed" in refusal(server, tmp_path).message


def test_a_model_that_is_too_large_is_refused_before_it_is_fetched(server: FileServer, tmp_path: Path) -> None:
    assert "larger than" in refusal(server, tmp_path, max_bytes=SIZE - 1).message
    assert server.sent < PIECE_BYTES


def test_a_model_of_unknown_size_that_is_too_large_is_refused_on_the_way(server: FileServer, tmp_path: Path) -> None:
    def endless(server: FileServer, asked: Asked, handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        while True:
            handler.wfile.write(b"%x\r\n%s\r\n" % (65536, bytes(65536)))
            asked.answered += 65536

    server.fault = endless
    assert "larger than" in refusal(server, tmp_path, max_bytes=SIZE).message


@pytest.mark.parametrize("what", ["its body", "its head"])
def test_a_server_that_sends_too_slowly_is_left_in_time(server: FileServer, tmp_path: Path, what: str) -> None:
    def drip(server: FileServer, asked: Asked, handler: Handler) -> bool:
        if what == "its body":
            return slowly(server, asked, handler)
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            handler.wfile.write(b"y")
            time.sleep(0.05)

    server.fault = drip
    began = time.monotonic()
    assert "did not arrive within 1 s" in refusal(server, tmp_path, timeout_seconds=1).message
    assert time.monotonic() - began < 5


def test_a_wrong_digest_leaves_nothing_in_place(server: FileServer, tmp_path: Path) -> None:
    assert refusal(server, tmp_path, "0" * 64).reason is Reason.DIGEST_MISMATCH


# Without a digest only the server's word says that two parts belong together, so it must have given it. ---------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trusting(tls: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from model_server.storage import connections

    monkeypatch.setenv("SSL_CERT_FILE", str(tls[0]))
    connections._tls_context.cache_clear()


@pytest.mark.usefixtures("trusting")
def test_https_without_a_digest_comes_in_parts_of_one_version(tls: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(FileServer(CONTENT), tls) as server:
        assert fetched(server, tmp_path, sha256="").digest == server.sha256
        assert server.most > 1
        assert all(asked.headers["if-range"] == '"one"' for asked in server.requests[1:])


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("etag", ["", 'W/"one"'], ids=["no ETag", "a weak ETag"])
def test_without_digest_and_version_it_comes_in_one_stream(tls: tuple[Path, Path], tmp_path: Path, etag: str) -> None:
    with serving(FileServer(CONTENT, etag), tls) as server:
        assert fetched(server, tmp_path, sha256="").digest == server.sha256
        assert [asked.range is None for asked in server.requests] == [False, True]


def test_with_a_digest_a_weak_version_is_enough(server: FileServer, tmp_path: Path) -> None:
    server.etag = 'W/"one"'
    assert fetched(server, tmp_path).digest == server.sha256
    assert server.most > 1
