"""From a model's URI to checked files on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model_server.errors import LoadFailure, Reason
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage import http
from model_server.storage.attempts import persist
from model_server.storage.files import Budget, Incoming, digest, single
from model_server.storage.uri import ModelUri, parse


@dataclass(frozen=True)
class Fetched:
    """A model on disk: one file, or a directory of several, and the sha256 of it."""

    path: Path
    digest: str


def fetch(
    model: ModelSettings,
    storage: StorageSettings,
    model_dir: Path,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Bring the model into `model_dir` and check its digest. Blocks.

    LoadFailure: InvalidSettings (the URI), FetchFailed, DigestMismatch, UnsafeFormat (links among the files).
    """
    uri = parse(model.uri, sha256=model.sha256, local_files=model.local_files)
    fetched = _present(uri, model_dir) if uri.scheme in ("file", "image") else None
    if fetched is None:
        fetched = _incoming(uri, model, storage, model_dir, sleep)
    if model.sha256 and fetched.digest != model.sha256:
        raise LoadFailure(
            Reason.DIGEST_MISMATCH,
            f"{uri.text[:500]} has sha256 {fetched.digest}, the specification says {model.sha256}",
        )
    return fetched


def _present(uri: ModelUri, model_dir: Path) -> Fetched:
    """A model that lies on this machine already."""
    path = model_dir if uri.scheme == "image" else Path(uri.path)
    if not path.exists():
        raise LoadFailure(Reason.FETCH_FAILED, f"{path} does not exist")
    if path.is_dir():
        path = single(path)
        if path.is_dir() and not any(path.iterdir()):
            raise LoadFailure(Reason.FETCH_FAILED, f"{uri.text[:500]}: there are no files in {path}")
    return Fetched(path, digest(path))


def _incoming(
    uri: ModelUri,
    model: ModelSettings,
    storage: StorageSettings,
    model_dir: Path,
    sleep: Callable[[float], None],
) -> Fetched:
    incoming = Incoming(model_dir, Budget(storage.max_bytes, storage.timeout_seconds))
    if uri.scheme == "s3":
        _from_bucket(uri, model, storage, incoming, sleep)
    else:

        def one() -> None:
            incoming.add(uri.name, http.chunks(uri, sha256=model.sha256, local_files=model.local_files))

        persist(one, uri.text[:500], sleep)
    return Fetched(*incoming.commit())


def _from_bucket(
    uri: ModelUri,
    model: ModelSettings,
    storage: StorageSettings,
    incoming: Incoming,
    sleep: Callable[[float], None],
) -> None:
    from model_server.storage.s3 import Bucket  # noqa: PLC0415 - needs a library that is an extra

    def opened() -> tuple[Bucket, dict[str, str]]:
        bucket = Bucket(uri, storage, local_files=model.local_files)
        return bucket, bucket.names(uri.path)

    bucket, names = persist(opened, uri.text[:500], sleep)
    for key, name in names.items():

        def one(key: str = key, name: str = name) -> None:
            incoming.add(name, bucket.chunks(key))

        persist(one, f"{key!r} of {uri.host}", sleep)
