"""Models from a real S3-compatible store."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from inflight_cluster import tools
from model_artifacts import add_one
from model_server.errors import LoadFailure, Reason
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage import addresses
from model_server.storage.fetching import fetch
from model_server.storage.s3 import Bucket, Object

OBJECTS = {
    "digits/1/model.onnx": add_one(),
    "package/1/pkg/__init__.py": b"",
    "package/1/pkg/mod.py": b"class A: ...\n",
    "package/10/other.py": b"",
    "große/mödel.onnx": b"umlauts",
}
KEYS = {"AWS_ACCESS_KEY_ID": "inflight", "AWS_SECRET_ACCESS_KEY": "not-so-secret"}


@dataclass
class S3:
    """A store with the bucket `models`."""

    endpoint: str
    secret_dir: Path
    client: Any


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """versitygw over a directory, with OBJECTS in it."""
    directory = tmp_path_factory.mktemp("s3")
    for name in ("buckets", "sidecar", "secret"):
        (directory / name).mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {**os.environ, "ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"]}
    environ["ROOT_SECRET_KEY"] = KEYS["AWS_SECRET_ACCESS_KEY"]
    command = [tools.ensure(["versitygw"])["versitygw"], "--port", f"127.0.0.1:{port}", "--quiet", "posix"]
    command += ["--sidecar", directory / "sidecar", directory / "buckets"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield _filled(S3(f"http://127.0.0.1:{port}", directory / "secret", None), port)
    finally:
        process.terminate()
        process.wait()


def _filled(store: S3, port: int) -> S3:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < deadline, "versitygw did not start"
            time.sleep(0.05)
    store.client = boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )
    store.client.create_bucket(Bucket="models")
    for key, body in OBJECTS.items():
        store.client.put_object(Bucket="models", Key=key, Body=body)
    for name, value in KEYS.items():
        (store.secret_dir / name).write_text(value + "\n")
    return store


@pytest.fixture(autouse=True)
def loopback_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's store is on this machine."""
    monkeypatch.setattr(addresses, "forbidden", lambda _address: False)


def fetched(s3: S3, tmp_path: Path, key: str, sha256: str = "", **storage: Any) -> Any:
    settings = StorageSettings(**{"endpoint": s3.endpoint, "secret_dir": s3.secret_dir, **storage})
    return fetch(ModelSettings("m", f"s3://models/{key}", sha256), settings, tmp_path, lambda _seconds: None)


def refusal(s3: S3, tmp_path: Path, key: str, **options: Any) -> LoadFailure:
    with pytest.raises(LoadFailure) as refused:
        fetched(s3, tmp_path, key, **options)
    return refused.value


@pytest.mark.parametrize("key", ["digits/1/model.onnx", "digits/1", "digits/1/"])
def test_one_object_is_a_file_by_its_key_or_its_prefix(s3: S3, tmp_path: Path, key: str) -> None:
    digest = hashlib.sha256(add_one()).hexdigest()
    found = fetched(s3, tmp_path, key, digest)
    assert found.path.name == "model.onnx"
    assert found.path.read_bytes() == add_one()
    assert found.digest == digest


@pytest.mark.parametrize("key", ["package/1", "package/1/"])
def test_several_objects_are_a_directory_and_a_longer_prefix_is_another_one(s3: S3, tmp_path: Path, key: str) -> None:
    found = fetched(s3, tmp_path, key)
    files = {str(file.relative_to(found.path)): file.read_bytes() for file in found.path.rglob("*") if file.is_file()}
    assert files == {"pkg/__init__.py": b"", "pkg/mod.py": b"class A: ...\n"}


def test_a_large_object_comes_whole(s3: S3, tmp_path: Path) -> None:
    body = os.urandom(12_345_678)
    s3.client.put_object(Bucket="models", Key="large", Body=body)
    assert fetched(s3, tmp_path, "large").digest == hashlib.sha256(body).hexdigest()


def test_an_object_that_changes_meanwhile_is_fetched_anew_and_never_mixed(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = os.urandom(20_000_000), os.urandom(20_000_000)
    s3.client.put_object(Bucket="models", Key="changing", Body=before)
    real = Bucket.read
    calls: list[Any] = []

    def read(bucket: Bucket, wanted: Object, start: int, stop: int) -> Any:
        calls.append(start)
        if start and after not in calls:
            calls.append(after)
            s3.client.put_object(Bucket="models", Key="changing", Body=after)
        return real(bucket, wanted, start, stop)

    monkeypatch.setattr(Bucket, "read", read)
    assert fetched(s3, tmp_path, "changing").path.read_bytes() == after
    assert calls.count(0) == 2


def test_many_small_objects_come_side_by_side(s3: S3, tmp_path: Path) -> None:
    for number in range(40):
        s3.client.put_object(Bucket="models", Key=f"many/{number}.py", Body=b"%d" % number)
    found = fetched(s3, tmp_path, "many/")
    assert {path.name: path.read_bytes() for path in found.path.iterdir()} == {f"{n}.py": b"%d" % n for n in range(40)}


def test_keys_with_other_letters_are_fetched(s3: S3, tmp_path: Path) -> None:
    assert fetched(s3, tmp_path, "große/mödel.onnx").path.read_bytes() == b"umlauts"


def test_an_object_that_is_not_there_is_told_at_once(s3: S3, tmp_path: Path) -> None:
    failure = refusal(s3, tmp_path, "nothing/here")
    assert failure.reason is Reason.FETCH_FAILED
    assert "no object 'nothing/here' and none below it" in failure.message


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(
            {"secret_dir": None},
            "asked with this identity: none",
            id="without an identity",
        ),
        pytest.param({"secret_dir": Path("/nowhere")}, "has no key AWS_ACCESS_KEY_ID", id="a Secret without keys"),
    ],
)
def test_who_may_not_read_is_told_as_whom_it_asked(s3: S3, tmp_path: Path, options: Any, says: str) -> None:
    failure = refusal(s3, tmp_path, "digits/1/model.onnx", **options)
    assert failure.reason is Reason.FETCH_FAILED
    assert says in failure.message


def test_wrong_keys_are_refused_without_being_told(s3: S3, tmp_path: Path) -> None:
    wrong = tmp_path / "secret"
    wrong.mkdir()
    for name in KEYS:
        (wrong / name).write_text("a-planted-canary")
    failure = refusal(s3, tmp_path / "models", "digits/1/model.onnx", secret_dir=wrong)
    assert "the storage Secret's" in failure.message
    assert "canary" not in failure.message


def test_more_bytes_than_allowed_are_not_kept(s3: S3, tmp_path: Path) -> None:
    assert "larger than 10 bytes" in refusal(s3, tmp_path, "digits/1/model.onnx", max_bytes=10).message


def test_a_store_that_is_down_is_told_after_a_few_attempts(s3: S3, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started_at = time.monotonic()
    failure = refusal(s3, tmp_path, "digits/1/model.onnx", endpoint=f"http://127.0.0.1:{port}")
    assert failure.reason is Reason.FETCH_FAILED
    assert "failed 4 times" in failure.message
    assert time.monotonic() - started_at < 10


def test_an_endpoint_of_this_machine_is_refused(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert "not fetched from loopback" in refusal(s3, tmp_path, "digits/1/model.onnx").message
