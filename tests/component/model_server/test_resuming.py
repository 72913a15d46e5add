"""A pod's container is killed while it fetches, or later: the next one goes on from what lies in the pod's volume."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_process import ROOT
from model_server.errors import LoadFailure
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage import connections, journal
from model_server.storage.fetching import Fetched, fetch
from model_server.storage.remote import PIECE_BYTES
from model_store import Asked, FileServer, Handler, certificate, serving, slowly

PIECES = 5
SIZE = (PIECES - 1) * PIECE_BYTES + 12_345
CONTENT, OTHER = os.urandom(SIZE), os.urandom(SIZE)

CONTAINER = """
import sys
from pathlib import Path
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage.fetching import fetch
url, sha256, models = sys.argv[1:]
fetch(ModelSettings("m", url, sha256, local_files=True), StorageSettings(connections=3), Path(models))
"""


def killed_half_way(server: FileServer, models: Path, sha256: str) -> None:
    """A container that was killed with -9 when the first pieces were there, and a bit of others."""

    def stalls(server: FileServer, asked: Asked, handler: Handler) -> bool:
        return bool(asked.range and asked.range[0] >= 3 * PIECE_BYTES) and slowly(server, asked, handler)

    server.fault = stalls
    process = subprocess.Popen(
        [sys.executable, "-c", CONTAINER, server.url, sha256, str(models)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while server.sent <= 3 * PIECE_BYTES + 5:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)  # what has arrived is written
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FileServer, Path]]:
    """A source, and what a container left that fetched with a sha256 and was killed half way."""
    models = tmp_path_factory.mktemp("killed") / "models"
    with serving(FileServer(CONTENT)) as server:
        killed_half_way(server, models, server.sha256)
        yield server, models


@pytest.fixture(scope="module")
def killed_tls(tls: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FileServer, Path]]:
    """The same over https and without a sha256."""
    models = tmp_path_factory.mktemp("killed") / "models"
    with pytest.MonkeyPatch.context() as patched, serving(FileServer(CONTENT), tls) as server:
        patched.setenv("SSL_CERT_FILE", str(tls[0]))
        connections._tls_context.cache_clear()
        killed_half_way(server, models, "")
        yield server, models


def _copied(killed: tuple[FileServer, Path], tmp_path: Path) -> tuple[FileServer, Path]:
    server, left = killed
    server.content, server.etag, server.fault, server.url = CONTENT, '"one"', lambda *_: False, server.url.split("?")[0]
    server.requests.clear()
    return server, shutil.copytree(left, tmp_path / "models")


@pytest.fixture
def left(killed: tuple[FileServer, Path], tmp_path: Path) -> tuple[FileServer, Path]:
    """The source as it was, and a copy of what the container left."""
    return _copied(killed, tmp_path)


@pytest.fixture
def left_tls(killed_tls: tuple[FileServer, Path], tmp_path: Path) -> tuple[FileServer, Path]:
    return _copied(killed_tls, tmp_path)


@pytest.fixture
def fresh(killed: tuple[FileServer, Path], tmp_path: Path) -> tuple[FileServer, Path]:
    """The source as it was, and nothing."""
    server, models = _copied(killed, tmp_path)
    shutil.rmtree(models)
    return server, models


def restarted(server: FileServer, models: Path, sha256: str) -> Fetched:
    model = ModelSettings("m", server.url, sha256, local_files=True)
    found = fetch(model, StorageSettings(), models, lambda _seconds: None)
    assert found.path.read_bytes() == server.content
    assert [path.name for path in models.iterdir()] == ["fetched"]
    return found


def test_what_came_before_a_kill_is_not_fetched_again(left: tuple[FileServer, Path]) -> None:
    server, models = left
    restarted(server, models, server.sha256)
    assert SIZE - 3 * PIECE_BYTES - 100 < server.sent <= SIZE - 3 * PIECE_BYTES
    assert all(asked.range and asked.range[0] >= 3 * PIECE_BYTES for asked in server.requests)


def test_without_a_sha256_the_etag_vouches_for_it(left_tls: tuple[FileServer, Path]) -> None:
    server, models = left_tls
    restarted(server, models, "")
    assert server.sent <= SIZE - 3 * PIECE_BYTES
    assert {asked.headers.get("if-range") for asked in server.requests} == {None, '"one"'}


def test_without_either_it_begins_again(left_tls: tuple[FileServer, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    server, models = left_tls
    monkeypatch.setattr(journal, "_boot", lambda: "the machine was started anew")
    restarted(server, models, "")
    assert server.sent >= SIZE, "after a power failure a file may lack what the journal says it has"


@pytest.mark.parametrize("content", [OTHER, OTHER[: 2 * PIECE_BYTES]], ids=["as long", "shorter"])
def test_another_file_at_the_source_is_fetched_whole(left: tuple[FileServer, Path], content: bytes) -> None:
    server, models = left
    sha256 = FileServer(content).sha256
    server.content, server.etag = content, '"two"'
    restarted(server, models, sha256)
    assert server.sent >= len(content)


def test_another_model_is_fetched_whole(left: tuple[FileServer, Path]) -> None:
    server, models = left
    server.url += "?version=2"
    restarted(server, models, server.sha256)
    assert server.sent >= SIZE


def test_what_was_spoilt_meanwhile_is_noticed_and_fetched_anew(left: tuple[FileServer, Path]) -> None:
    server, models = left
    (part,) = models.glob(".incoming*/files/digits.onnx")
    with part.open("r+b") as file:
        file.write(bytes([CONTENT[0] ^ 1]))
    restarted(server, models, server.sha256)
    assert server.sent >= SIZE


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda part: os.truncate(part / "files" / "digits.onnx", 10), id="the file cut short"),
        pytest.param(lambda part: (part / "files" / "digits.onnx").unlink(), id="the file gone"),
        pytest.param(lambda part: (part / "journal").write_bytes(b"{}"), id="the journal nonsense"),
        pytest.param(lambda part: os.truncate(part / "journal", 30), id="the journal cut short"),
        pytest.param(lambda part: (part / "journal").unlink(), id="the journal gone"),
    ],
)
def test_what_lies_there_damaged_is_not_believed(left: tuple[FileServer, Path], damage: Any) -> None:
    server, models = left
    (part,) = models.glob(".incoming*")
    damage(part)
    restarted(server, models, server.sha256)
    assert SIZE <= server.sent < SIZE + PIECE_BYTES


def test_a_kill_after_the_last_byte_costs_one_byte(left: tuple[FileServer, Path]) -> None:
    server, models = left
    (part,) = models.glob(".incoming*")
    (part / "files" / "digits.onnx").write_bytes(CONTENT)
    line = (part / "journal").read_bytes().split(b"\n")[0] + b"\n"
    journal.Journal(part / "journal", line, [stop for _, stop in journal.cuts(SIZE)])
    restarted(server, models, server.sha256)
    assert server.sent == 1


def test_a_source_that_fails_for_too_long_is_gone_on_from_by_the_next_container(fresh: tuple[FileServer, Path]) -> None:
    server, models = fresh

    def gone(server: FileServer, asked: Asked, handler: Handler) -> bool:
        handler.close_connection = True
        return bool(asked.range and asked.range[0])

    server.fault = gone
    with pytest.raises(LoadFailure, match="times in a row"):
        restarted(server, models, server.sha256)
    server.fault = lambda *_: False
    server.requests.clear()
    restarted(server, models, server.sha256)
    assert server.sent == SIZE - PIECE_BYTES


def test_a_restarted_container_needs_no_source_for_what_lies_there_complete(fresh: tuple[FileServer, Path]) -> None:
    server, models = fresh
    restarted(server, models, server.sha256)
    server.requests.clear()
    restarted(server, models, server.sha256)
    assert server.requests == []


def test_what_lies_there_complete_is_hashed_before_it_is_believed(fresh: tuple[FileServer, Path]) -> None:
    server, models = fresh
    path = restarted(server, models, server.sha256).path
    path.write_bytes(OTHER)
    restarted(server, models, server.sha256)
