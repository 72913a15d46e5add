"""From a model's URI to checked files on this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from model_server.errors import LoadFailure, Reason
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage.attempts import persist
from model_server.storage.cache import Cache, CacheFailure, Lease
from model_server.storage.files import MAX_FILES, DiskFailure, Incoming, combined, digest, single
from model_server.storage.pieces import Wanted
from model_server.storage.remote import Remote
from model_server.storage.transfer import Budget, Transfer
from model_server.storage.uri import ModelUri, parse

_log = structlog.get_logger()


@dataclass(frozen=True)
class Fetched:
    """A model on disk: one file, or a directory of several, and the sha256 of it."""

    path: Path
    digest: str
    lease: Lease | None = None
    """Of the node's cache, where it comes from there."""


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
    if uri.scheme in ("file", "image"):
        fetched = _present(uri, model_dir)
        _require(fetched.digest, model, uri)
        return fetched
    fetching = _Fetching(uri, model, storage, Budget(storage.max_bytes, storage.timeout_seconds), sleep)
    if storage.cache_dir and model.sha256:
        try:
            return _shared(fetching, Cache(storage.cache_dir, storage.cache_max_bytes))
        except (CacheFailure, DiskFailure, OSError) as failure:
            _log.warning("the node's cache can't be used, fetching without it", why=str(failure))
    return fetching.into(model_dir)


def _require(found: str, model: ModelSettings, uri: ModelUri) -> None:
    if model.sha256 and found != model.sha256:
        raise LoadFailure(
            Reason.DIGEST_MISMATCH,
            f"{uri.text[:500]} has sha256 {found}, the specification says {model.sha256}",
        )


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


@dataclass(frozen=True)
class _Fetching:
    """What is fetched, and what that may take."""

    uri: ModelUri
    model: ModelSettings
    storage: StorageSettings
    budget: Budget
    sleep: Callable[[float], None]

    def into(self, directory: Path) -> Fetched:
        """Fetch into `directory`, trying again what may pass."""
        return persist(lambda: self._attempt(directory), self.uri.text[:500], self.sleep)

    def _attempt(self, directory: Path) -> Fetched:
        self.budget.check(0)
        with Incoming(directory) as incoming, self._remotes() as remotes:
            if len(remotes) > MAX_FILES:
                raise LoadFailure(Reason.UNSUPPORTED_FORMAT, f"the model has more than {MAX_FILES} files")
            wanted = [Wanted(remote, incoming.place(name)) for name, remote in remotes.items()]
            hashes = Transfer(wanted, self.budget, self.storage.connections, self.sleep).run()
            found = combined(dict(zip(remotes, hashes, strict=True)))
            _require(found, self.model, self.uri)
            return Fetched(incoming.commit(), found)

    @contextmanager
    def _remotes(self) -> Iterator[Mapping[str, Remote]]:
        """The files to fetch by relative name. Each source imports its own library, and only when it is asked for."""
        uri, model = self.uri, self.model
        if uri.scheme == "s3":
            from model_server.storage.s3 import Bucket  # noqa: PLC0415

            yield Bucket(uri, self.storage, local_files=model.local_files).files(uri.path)
            return
        from model_server.storage.http import HttpFile  # noqa: PLC0415

        file = HttpFile(uri, sha256=model.sha256, local_files=model.local_files)
        # A server may send its answer's head a byte at a time: no time-out of a read ends that.
        alarm = threading.Timer(max(0.0, self.budget.left()), file.close)
        alarm.daemon = True
        alarm.start()
        try:
            yield {uri.name: file.begin()}
        finally:
            alarm.cancel()
            file.close()


def _shared(fetching: _Fetching, cache: Cache) -> Fetched:
    """From the node's cache, into which it is fetched once. The lease is kept for the life of the process."""
    sha256 = fetching.model.sha256
    lease = cache.lease(sha256, fetching.uri.name)
    try:
        path = lease.found(sha256)
        if path is None:
            # Half the time, so that the rest is left to fetch without the cache if whoever fetches now has got stuck.
            with lease.filling(fetching.budget.left() / 2):
                path = lease.found(sha256) or _filled(fetching, cache, lease)
            cache.evict()
        else:
            _log.info("the model is in the node's cache", entry=lease.entry.name[:12])
    except BaseException:
        lease.release()
        raise
    return Fetched(path, sha256, lease)


def _filled(fetching: _Fetching, cache: Cache, lease: Lease) -> Path:
    try:
        path = fetching.into(lease.entry).path
    except DiskFailure:
        cache.evict(0)  # perhaps that makes room
        path = fetching.into(lease.entry).path
    lease.protect()
    return path
