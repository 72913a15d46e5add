"""From nothing to ready, as a process: what a kill, a full disk or a large model does to it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import onnx
import pytest

from model_artifacts import add_one
from model_process import ServerProcess, started
from model_server.storage.remote import PIECE_BYTES
from model_store import Asked, FileServer, Handler, serving


def padded(size: int) -> bytes:
    """An ONNX model of about `size` bytes."""
    model = onnx.load_from_string(add_one())
    model.doc_string = "x" * size
    content: bytes = model.SerializeToString()
    return content


@pytest.fixture(scope="module")
def content() -> bytes:
    return padded(2 * PIECE_BYTES)


@pytest.fixture
def store(content: bytes) -> Iterator[FileServer]:
    with serving(FileServer(content)) as running:
        yield running


def arguments(store: FileServer) -> tuple[str, ...]:
    return "--model", f"digits={store.url}", "--sha256", store.sha256


def files(directory: Path) -> list[Path]:
    return sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())


def ready(server: ServerProcess) -> bool:
    return httpx.get(f"{server.url}/v2/health/ready").status_code == 200


def test_each_phase_of_a_cold_start_is_measured(store: FileServer, tmp_path: Path) -> None:
    with started(*arguments(store), MODEL_DIR=str(tmp_path)) as server:
        seconds = {
            phase: server.metric(f'cold_start_seconds{{phase="{phase}"}}')
            for phase in ("fetch", "load", "warmup", "ready")
        }
        assert min(seconds.values()) > 0
        assert seconds["ready"] > seconds["fetch"] + seconds["load"] + seconds["warmup"]


def test_after_a_kill_half_way_a_new_process_does_not_believe_what_is_spoilt(store: FileServer, tmp_path: Path) -> None:
    def stuck(server: FileServer, asked: Asked, handler: Handler) -> bool:
        if asked.range and asked.range[0]:
            time.sleep(20)
        return False

    store.fault = stuck
    with started(*arguments(store), ready=False, MODEL_DIR=str(tmp_path)) as server:
        deadline = time.monotonic() + 20
        while store.sent < PIECE_BYTES or not files(tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not ready(server)
        server.stop(signal.SIGKILL)
    half, journal = files(tmp_path)
    assert half.parts[0] == journal.parts[0]
    assert half.parts[0].startswith(".incoming")
    (tmp_path / half).write_bytes(b"something else")

    store.fault = lambda *_: False
    with started(*arguments(store), MODEL_DIR=str(tmp_path)) as server:
        assert ready(server)
    assert files(tmp_path) == [Path("fetched/digits.onnx")]
    assert (tmp_path / "fetched/digits.onnx").read_bytes() == store.content


def test_a_file_that_may_not_grow_is_told_and_nothing_is_left(store: FileServer, tmp_path: Path) -> None:
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({PIECE_BYTES},) * 2)"
    with started(*arguments(store), before=limit, ready=False, MODEL_DIR=str(tmp_path)) as server:
        assert server.ended() == 1
        assert server.log[-1]["reason"] == "FetchFailed"
        assert "writing 'digits.onnx' failed: File too large" in server.log[-1]["message"]
    assert files(tmp_path) == []


def test_fetching_a_model_takes_no_memory_of_its_size(tmp_path: Path) -> None:
    report = (
        "import atexit, resource, sys; atexit.register(lambda: "
        "sys.stderr.write('{\"peak_kib\": %d}\\n' % resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))"
    )
    peaks = []
    for size in (100, 300_000_000):
        with serving(FileServer(bytes(size))) as store:  # no model: it is fetched, hashed and refused
            with started(*arguments(store), before=report, ready=False, MODEL_DIR=str(tmp_path)) as server:
                assert server.ended() == 1
            assert server.raw, "no log"
            assert any(line.get("reason") == "UnsupportedFormat" for line in server.log), server.raw
            peaks.append(next(line["peak_kib"] for line in server.log if "peak_kib" in line))
    assert peaks[1] - peaks[0] < 40 * 1024


def test_two_processes_on_one_cache_fetch_once_and_both_serve(store: FileServer, tmp_path: Path) -> None:
    shared = {"CACHE_DIR": str(tmp_path / "cache")}
    with (
        started(*arguments(store), ready=False, **shared) as first,
        started(*arguments(store), ready=False, **shared) as second,
    ):
        for server in (first, second):
            server.wait_for("ready")
        assert store.sent == len(store.content)


# The digest that this revision's first pod had, in a file that may appear later --------------------------------------

QUICKLY = "from model_server import first_digest; first_digest.LOOK_SECONDS = 0.05"


def test_a_model_that_is_another_one_than_the_first_pods_is_not_served(store: FileServer, tmp_path: Path) -> None:
    (tmp_path / "sha256").write_text("ab" * 32)
    settings = {"MODEL_DIGEST_FILE": str(tmp_path / "sha256"), "MODEL_DIR": str(tmp_path / "models")}
    model = tmp_path / "model.onnx"
    model.write_bytes(store.content)
    with started("--model", f"digits={model}", ready=False, **settings) as server:
        assert server.ended() == 1
        assert server.log[-1]["reason"] == "DigestMismatch"


@pytest.mark.parametrize("same", [True, False], ids=["the same", "another"])
def test_a_server_that_started_first_ends_when_another_digest_is_recorded(
    store: FileServer, tmp_path: Path, same: bool
) -> None:
    model, file = tmp_path / "model.onnx", tmp_path / "sha256"
    model.write_bytes(store.content)
    with started("--model", f"digits={model}", before=QUICKLY, MODEL_DIGEST_FILE=str(file)) as server:
        file.write_text(store.sha256 if same else "ab" * 32)
        if same:
            time.sleep(0.5)
            assert ready(server)
        else:
            assert server.ended() == 1
            assert server.log[-1]["reason"] == "DigestMismatch"
