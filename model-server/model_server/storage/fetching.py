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
from model_server.storage import archives
from model_server.storage.attempts import persist
from model_server.storage.cache import Cache, CacheFailure, Lease
from model_server.storage.files import MAX_FILES, DiskFailure, combined, matching
from model_server.storage.in_place import InPlace, present
from model_server.storage.incoming import Incoming
from model_server.storage.pieces import Plan, Wanted
from model_server.storage.remote import ChangedError, Remote
from model_server.storage.transfer import Budget, Transfer
from model_server.storage.uri import ModelUri, parse

_log = structlog.get_logger()


@dataclass(frozen=True)
class Fetched:
    """A model on disk: one file, or a directory of several, and the sha256 of what was fetched."""

    path: Path
    digest: str
    lease: Lease | None = None
    """Of the node's cache, where it comes from there."""
    in_place: InPlace | None = None
    """Where it lies is not ours, so that somebody may change it."""

    def require_unchanged(self) -> None:
        """LoadFailure(DigestMismatch) when its files aren't any more those that were hashed."""
        if self.in_place:
            self.in_place.require_unchanged()


def fetch(
    model: ModelSettings,
    storage: StorageSettings,
    model_dir: Path,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Bring the model into `model_dir`, check its digest and unpack it if it is an archive. Blocks.

    LoadFailure: InvalidSettings (the URI), FetchFailed, DigestMismatch, UnsafeFormat (links among the files),
    UnsafeArchive.
    """
    uri = parse(model.uri, sha256=model.sha256, local_files=model.local_files)
    budget = Budget(storage.max_bytes, storage.timeout_seconds)
    if uri.scheme in ("file", "image", "pvc"):
        found = present(uri, storage, model_dir, budget)
        _require(found.digest, model, uri)
        fetched = Fetched(found.path, found.digest, in_place=found)
    else:
        fetched = _brought(_Fetching(uri, model, storage, budget, sleep), model_dir)
    archive = archives.kind(uri.path) if uri.scheme != "image" and fetched.path.is_file() else ""
    if not archive:
        return fetched
    content = archives.unpack(fetched.path, archive, model_dir, budget)
    fetched.require_unchanged()
    if fetched.lease:
        fetched.lease.release()
    return Fetched(content, fetched.digest)


def _brought(fetching: _Fetching, model_dir: Path) -> Fetched:
    sha256, storage = fetching.model.sha256, fetching.storage
    if sha256 and (path := matching(model_dir / "fetched", sha256)):
        _log.info("the model has been fetched already")  # by a container before this one, in the same pod
        return Fetched(path, sha256)
    if storage.cache_dir and sha256:
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
        known = bool(self.model.sha256)
        with Incoming(directory) as incoming, self._remotes(incoming.missing()) as remotes:
            if len(remotes) > MAX_FILES:
                raise LoadFailure(Reason.UNSUPPORTED_FORMAT, f"the model has more than {MAX_FILES} files")
            journal = incoming.follow(remotes, (self.uri.text, self.storage.endpoint), digest_known=known)
            plan = Plan([Wanted(remote, incoming.place(name)) for name, remote in remotes.items()], journal)
            if incoming.resumed:
                _log.info("going on with what an earlier attempt has fetched", missing_bytes=plan.missing)
            hashes = Transfer(plan, self.budget, self.storage.connections, self.sleep).run()
            found = combined(dict(zip(remotes, hashes, strict=True)))
            if incoming.resumed and known and found != self.model.sha256:
                raise ChangedError("what an earlier attempt has fetched is of no use")
            _require(found, self.model, self.uri)
            return Fetched(incoming.commit(), found)

    @contextmanager
    def _remotes(self, first: tuple[int, int] | None) -> Iterator[Mapping[str, Remote]]:
        """The files to fetch by relative name; the `first` part wanted may spare a request.

        Each source imports its own library, and only when it is asked for.
        """
        uri, model = self.uri, self.model
        if uri.scheme in ("s3", "gs", "az"):
            from model_server.storage.buckets import Bucket  # noqa: PLC0415
            from model_server.storage.stores import opened  # noqa: PLC0415

            store = opened(uri, self.storage, local_files=model.local_files)
            yield Bucket(store).files(store.prefix)
            return
        from model_server.storage.connections import Pool  # noqa: PLC0415
        from model_server.storage.http import HttpFile  # noqa: PLC0415

        file = HttpFile(lambda: uri, uri.host, Pool(any_address=model.local_files), sha256=model.sha256)
        # A server may send its answer's head a byte at a time: no time-out of a read ends that.
        alarm = threading.Timer(max(0.0, self.budget.left()), file.close)
        alarm.daemon = True
        alarm.start()
        try:
            yield {uri.name: file.begin(first)}
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
