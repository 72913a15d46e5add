"""Models from real object stores on loopback; what they are is said in object_stores."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import object_stores
from model_artifacts import add_one
from model_server.errors import LoadFailure, Reason
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage import addresses
from model_server.storage.attempts import TransientError
from model_server.storage.buckets import Bucket, Object
from model_server.storage.fetching import fetch
from model_server.storage.remote import PIECE_BYTES
from object_stores import Store, secret_dir

OBJECTS = {
    "digits/1/model.onnx": add_one(),
    "package/1/pkg/__init__.py": b"",
    "package/1/pkg/mod.py": b"class A: ...\n",
    "package/10/other.py": b"",
    "große/mödel.onnx": b"umlauts",
}


@pytest.fixture(scope="module", params=["s3", "gs", "az"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Each of them, with OBJECTS in it."""
    directory = tmp_path_factory.mktemp(request.param)
    running = {
        "s3": lambda: object_stores.versitygw(directory),
        "gs": object_stores.fake_gcs,
        "az": lambda: object_stores.azurite(directory),
    }
    with running[request.param]() as found:
        for key, body in OBJECTS.items():
            found.put(key, body)
        yield found


@pytest.fixture(autouse=True)
def loopback_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' stores are on this machine."""
    monkeypatch.setattr(addresses, "forbidden", lambda _address: False)


def fetched(
    store: Store, tmp_path: Path, key: str, sha256: str = "", secret: Mapping[str, str] | None = None, **storage: Any
) -> Any:
    keys = secret_dir(tmp_path / f"secret-{time.monotonic_ns()}", store.secret if secret is None else secret)
    settings = StorageSettings(**{"endpoint": store.endpoint, "secret_dir": keys, **storage})
    model = ModelSettings("m", f"{store.prefix}/{key}", sha256)
    return fetch(model, settings, tmp_path / "models", lambda _seconds: None)


def refusal(store: Store, tmp_path: Path, key: str, **options: Any) -> LoadFailure:
    with pytest.raises(LoadFailure) as refused:
        fetched(store, tmp_path, key, **options)
    assert not list(tmp_path.glob("models/*")), "something was left behind"
    return refused.value


@pytest.mark.parametrize("key", ["digits/1/model.onnx", "digits/1", "digits/1/"])
def test_one_object_is_a_file_by_its_key_or_its_prefix(store: Store, tmp_path: Path, key: str) -> None:
    digest = hashlib.sha256(add_one()).hexdigest()
    found = fetched(store, tmp_path, key, digest)
    assert found.path.name == "model.onnx"
    assert found.path.read_bytes() == add_one()
    assert found.digest == digest


@pytest.mark.parametrize("key", ["package/1", "package/1/"])
def test_several_objects_are_a_directory_and_a_longer_prefix_is_another_one(
    store: Store, tmp_path: Path, key: str
) -> None:
    found = fetched(store, tmp_path, key)
    files = {str(file.relative_to(found.path)): file.read_bytes() for file in found.path.rglob("*") if file.is_file()}
    assert files == {"pkg/__init__.py": b"", "pkg/mod.py": b"class A: ...\n"}


def test_a_large_object_comes_whole(store: Store, tmp_path: Path) -> None:
    body = os.urandom(12_345_678)
    store.put("large", body)
    assert fetched(store, tmp_path, "large").digest == hashlib.sha256(body).hexdigest()


def test_an_object_that_changes_meanwhile_is_fetched_anew_and_never_mixed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = os.urandom(20_000_000), os.urandom(20_000_000)
    store.put("changing", before)
    real = Bucket.read
    calls: list[Any] = []

    def read(bucket: Bucket, wanted: Object, start: int, stop: int) -> Any:
        calls.append(start)
        if start and after not in calls:
            calls.append(after)
            store.put("changing", after)
        return real(bucket, wanted, start, stop)

    monkeypatch.setattr(Bucket, "read", read)
    assert fetched(store, tmp_path, "changing").path.read_bytes() == after
    assert calls.count(0) == 2


def test_what_an_interrupted_fetch_has_brought_is_not_fetched_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(20_000_000)
    store.put("interrupted", body)
    real, calls, down = Bucket.read, [], True

    def read(bucket: Bucket, wanted: Object, start: int, stop: int) -> Any:
        calls.append(start)
        if down and start:
            raise TransientError("the store has gone")
        return real(bucket, wanted, start, stop)

    monkeypatch.setattr(Bucket, "read", read)
    with pytest.raises(LoadFailure, match="the store has gone"):
        fetched(store, tmp_path, "interrupted")
    down = False
    calls.clear()
    assert fetched(store, tmp_path, "interrupted").path.read_bytes() == body
    assert sorted(calls) == [PIECE_BYTES, 2 * PIECE_BYTES]


def test_many_small_objects_come_side_by_side(store: Store, tmp_path: Path) -> None:
    for number in range(40):
        store.put(f"many/{number}.py", b"%d" % number)
    found = fetched(store, tmp_path, "many/")
    assert {path.name: path.read_bytes() for path in found.path.iterdir()} == {f"{n}.py": b"%d" % n for n in range(40)}


def test_keys_with_other_letters_are_fetched(store: Store, tmp_path: Path) -> None:
    assert fetched(store, tmp_path, "große/mödel.onnx").path.read_bytes() == b"umlauts"


def test_an_object_that_is_not_there_is_told_at_once(store: Store, tmp_path: Path) -> None:
    failure = refusal(store, tmp_path, "nothing/here")
    assert failure.reason is Reason.FETCH_FAILED
    assert "no object 'nothing/here' and none below it" in failure.message


def test_more_bytes_than_allowed_are_not_kept(store: Store, tmp_path: Path) -> None:
    assert "larger than 10 bytes" in refusal(store, tmp_path, "digits/1/model.onnx", max_bytes=10).message


def test_every_kind_of_secret_may_read(store: Store, tmp_path: Path) -> None:
    for secret in store.other_secrets.values():
        assert fetched(store, tmp_path, "package/1", secret=secret).path.is_dir()


def test_a_secret_without_keys_is_told_which_it_lacks(store: Store, tmp_path: Path) -> None:
    failure = refusal(store, tmp_path, "digits/1", secret={"key": "x"})
    assert failure.reason is Reason.SECRET_NOT_FOUND
    assert "lacks" in failure.message
    assert all(key in failure.message for key in store.secret)


def test_a_secret_that_is_not_there_is_told_with_what_it_needs(store: Store, tmp_path: Path) -> None:
    failure = refusal(store, tmp_path, "digits/1", secret={})
    assert failure.reason is Reason.SECRET_NOT_FOUND
    assert "isn't there" in failure.message
    assert all(key in failure.message for key in store.secret)


def test_wrong_keys_are_refused_without_being_told(store: Store, tmp_path: Path) -> None:
    failure = refusal(store, tmp_path, "digits/1/model.onnx", secret=dict.fromkeys(store.secret, "a-planted-canary"))
    assert failure.reason is Reason.FETCH_FAILED
    assert "the storage Secret" in failure.message
    assert "canary" not in failure.message


def test_who_may_not_read_is_told_as_whom_it_asked(store: Store, tmp_path: Path) -> None:
    if store.prefix.startswith("gs"):
        assert fetched(store, tmp_path, "digits/1", secret_dir=None), "the emulator asks nobody who he is"
        return
    failure = refusal(store, tmp_path, "digits/1/model.onnx", secret_dir=None)
    assert failure.reason is Reason.FETCH_FAILED
    assert "asked with this identity: none" in failure.message


def test_a_store_that_is_down_is_told_after_a_few_attempts(store: Store, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    failure = refusal(store, tmp_path, "digits/1/model.onnx", endpoint=f"http://127.0.0.1:{port}")
    assert failure.reason is Reason.FETCH_FAILED
    assert "failed 4 times" in failure.message


def test_an_endpoint_of_this_machine_is_refused(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert "not fetched from loopback" in refusal(store, tmp_path, "digits/1/model.onnx").message
