"""The cache that pods of a node share: fetched once, believed never, emptied of what nobody uses, safe after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from model_process import ROOT
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage import cache as caching
from model_server.storage.cache import Cache
from model_server.storage.fetching import Fetched, fetch
from model_server.storage.remote import PIECE_BYTES
from model_store import Asked, FileServer, Handler, serving

SIZE = PIECE_BYTES + 1000
KEPT: list[Fetched] = []


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(FileServer(os.urandom(SIZE))) as running:
        yield running


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    """The leases that a test took, as the end of its process would."""
    yield
    while KEPT:
        fetched = KEPT.pop()
        if fetched.lease:
            fetched.lease.release()


def fetched(server: FileServer, pod: Path, cache: Path | None, sha256: str | None = None, **storage: Any) -> Fetched:
    """What a pod that serves `server`'s model gets, with /models in `pod`."""
    model = ModelSettings("digits", server.url, server.sha256 if sha256 is None else sha256, local_files=True)
    settings = StorageSettings(cache_dir=cache, **storage)
    found = fetch(model, settings, pod, lambda seconds: time.sleep(seconds / 50))
    KEPT.append(found)
    assert found.path.read_bytes() == server.content
    return found


def ended(found: Fetched) -> None:
    """The pod that had it is gone."""
    KEPT.remove(found)
    assert found.lease
    found.lease.release()


POD = """
import sys, time
from pathlib import Path
from model_server import logs
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage.fetching import fetch
logs.configure("info")
url, sha256, models, cache = sys.argv[1:]
found = fetch(ModelSettings("m", url, sha256, local_files=True), StorageSettings(cache_dir=Path(cache)), Path(models))
print(found.path, flush=True)
time.sleep(60)
"""


@contextmanager
def pod(server: FileServer, models: Path, cache: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that fetches the model and prints where it is."""
    process = subprocess.Popen(
        [sys.executable, "-c", POD, server.url, server.sha256, str(models), str(cache)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def told(process: subprocess.Popen[str]) -> Path:
    assert process.stdout
    return Path(process.stdout.readline().strip())


def waited(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_pods_that_start_together_fetch_once(server: FileServer, tmp_path: Path) -> None:
    with (
        pod(server, tmp_path / "a", tmp_path / "cache") as first,
        pod(server, tmp_path / "b", tmp_path / "cache") as second,
        pod(server, tmp_path / "c", tmp_path / "cache") as third,
    ):
        paths = {told(first), told(second), told(third)}
    assert len(paths) == 1
    assert paths.pop().read_bytes() == server.content
    assert server.sent == SIZE


def test_who_is_killed_half_way_leaves_nothing_that_anybody_uses(server: FileServer, tmp_path: Path) -> None:
    def stuck(server: FileServer, asked: Asked, handler: Handler) -> bool:
        if asked.range and asked.range[0]:
            time.sleep(20)
        return False

    server.fault = stuck
    with pod(server, tmp_path / "a", tmp_path / "cache") as first:
        waited(lambda: len(server.requests) == 2 and server.sent >= PIECE_BYTES)
        with pod(server, tmp_path / "b", tmp_path / "cache") as second:
            time.sleep(0.5)
            assert len(server.requests) == 2, "the second did not wait for the first"
            server.fault = lambda *_: False
            first.send_signal(signal.SIGKILL)
            assert told(second).read_bytes() == server.content
    entry = next((tmp_path / "cache").iterdir())
    assert sorted(path.name for path in entry.iterdir()) == ["fetched", "fill", "use"]


@pytest.mark.parametrize("damage", ["a changed byte", "cut short", "gone", "a link"])
def test_what_is_not_as_it_should_be_is_fetched_again(server: FileServer, tmp_path: Path, damage: str) -> None:
    first = fetched(server, tmp_path / "a", tmp_path / "cache")
    first.path.parent.chmod(0o755)
    first.path.chmod(0o644)
    if damage == "a changed byte":
        with first.path.open("r+b") as file:
            file.write(bytes([server.content[0] ^ 1]))
    elif damage == "cut short":
        os.truncate(first.path, 10)
    else:
        first.path.unlink()
    if damage == "a link":
        first.path.symlink_to("/etc/hostname")
    second = fetched(server, tmp_path / "b", tmp_path / "cache")
    assert second.path == first.path
    assert server.sent == 2 * SIZE


def test_a_model_of_unknown_digest_is_not_shared(server: FileServer, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(server.content)
    found = fetch(ModelSettings("m", str(model), local_files=True), StorageSettings(cache_dir=tmp_path / "c"), tmp_path)
    assert found.lease is None
    assert not (tmp_path / "c").exists()


def test_the_same_content_by_another_name_is_another_entry(server: FileServer, tmp_path: Path) -> None:
    first = fetched(server, tmp_path / "a", tmp_path / "cache")
    server.url = server.url.replace("digits.onnx", "other.py")
    second = fetched(server, tmp_path / "b", tmp_path / "cache")
    assert (first.path.name, second.path.name) == ("digits.onnx", "other.py")


def test_files_in_the_cache_are_write_protected(server: FileServer, tmp_path: Path) -> None:
    path = fetched(server, tmp_path / "a", tmp_path / "cache").path
    assert [oct(each.stat().st_mode & 0o777) for each in (path, path.parent)] == ["0o444", "0o555"]


def test_room_is_made_by_removing_what_was_used_longest_ago(tmp_path: Path) -> None:
    cache, bound = tmp_path / "cache", {"cache_max_bytes": 2 * SIZE}
    with (
        serving(FileServer(os.urandom(SIZE))) as one,
        serving(FileServer(os.urandom(SIZE))) as two,
        serving(FileServer(os.urandom(SIZE))) as three,
    ):
        for server in (one, two, one):
            ended(fetched(server, tmp_path / "pod", cache, **bound))
        ended(fetched(three, tmp_path / "pod", cache, **bound))
        for server, times in ((one, 1), (two, 2), (three, 1)):
            ended(fetched(server, tmp_path / "pod", cache, cache_max_bytes=2**40))
            assert server.sent == times * SIZE


def test_what_is_in_use_is_never_removed(server: FileServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with serving(FileServer(os.urandom(SIZE))) as other:
        with pod(server, tmp_path / "a", cache) as user:
            path = told(user)
            fetched(other, tmp_path / "b", cache, cache_max_bytes=0)
            assert path.read_bytes() == server.content
        Cache(cache, 0).evict()
        assert not path.exists(), "the killed pod's lease did not end with it"
        assert len(list(cache.iterdir())) == 1


def test_an_entry_that_is_removed_while_it_is_asked_for_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, real = Cache(tmp_path, 0), caching._locked
    removed = []

    def late(file: int, kind: int, seconds: float) -> bool:
        if not removed:
            removed.append(True)
            monkeypatch.setattr(caching, "_locked", real)
            (entry,) = tmp_path.iterdir()
            assert cache._removed(entry)
        return real(file, kind, seconds)

    monkeypatch.setattr(caching, "_locked", late)
    lease = cache.lease("0" * 64, "m")
    assert (lease.entry / "use").exists()
    lease.release()


def test_a_model_that_finds_no_room_in_the_cache_gets_it_or_is_fetched_without(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_bytes(b"no directory")
    found = fetched(server, tmp_path / "a", tmp_path / "cache")
    assert found.lease is None
    assert found.path.is_relative_to(tmp_path / "a")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for two models, not three."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = f"size={SIZE * 5 // 2}"
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", disk]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_is_relieved_of_what_nobody_uses(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(SIZE))
    with serving(FileServer(os.urandom(SIZE))) as one, serving(FileServer(os.urandom(SIZE))) as two:
        ended(fetched(one, tmp_path / "a", small_disk / "cache"))
        found = fetched(two, tmp_path / "b", small_disk / "cache")
        assert found.lease, "the older model was not removed for it"
        with serving(FileServer(os.urandom(SIZE))) as three:
            assert fetched(three, tmp_path / "c", small_disk / "cache").lease is None, "there was no room"


def test_who_waits_for_a_pod_that_is_stuck_fetches_alone_in_time(server: FileServer, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", 2**40)
    stuck = cache.lease(server.sha256, "digits.onnx")
    with stuck.filling(0):
        assert fetched(server, tmp_path / "a", tmp_path / "cache", timeout_seconds=2).lease is None
    stuck.release()
