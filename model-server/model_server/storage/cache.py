"""Models that the pods of a node share on a volume: fetched once, removed when they are long unused and room is short.

An entry is a directory with two lock files (flock: whoever is killed lets go):
    use    shared by whoever serves from the entry, for its whole life; taken alone only to remove the entry
    fill   taken alone by whoever fetches into it; the others wait
An entry's content is never believed: it is hashed before each use, so it needs no care when a node loses power. Only
models whose sha256 is known beforehand come here, and all that share the volume must trust each other, as whoever can
write to it can change a file that is being served.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from model_server.errors import LoadFailure
from model_server.storage.files import matching, regular_files, remove

_log = structlog.get_logger()

_POLL_SECONDS: Final = 0.05
_MOMENT_SECONDS: Final = 10.0
"""Removing an entry holds its use lock for a rename only."""
_TRASH: Final = ".removed-"


class CacheFailure(Exception):  # noqa: N818 - an outcome, like LoadFailure
    """The cache can't be used; the model can be fetched without it."""


class Lease:
    """The right to use an entry: while it is held, nobody removes the entry. A killed process holds none."""

    def __init__(self, entry: Path, use: int) -> None:
        self.entry = entry
        self._use = use

    def release(self) -> None:
        """Let go."""
        os.close(self._use)

    def found(self, sha256: str) -> Path | None:
        """The entry's model, if it is there and has this digest."""
        return matching(self.entry / "fetched", sha256)

    @contextlib.contextmanager
    def filling(self, seconds: float) -> Iterator[None]:
        """Alone in fetching into the entry. CacheFailure when another pod takes longer than that."""
        lock = _opened(self.entry / "fill")
        try:
            if not _locked(lock, fcntl.LOCK_EX, 0):
                _log.info("another pod of this node fetches the model, waiting for it")
                if not _locked(lock, fcntl.LOCK_EX, seconds):
                    raise CacheFailure(f"another pod has been fetching this model for {seconds:.0f} s")
            yield
        finally:
            os.close(lock)

    def protect(self) -> None:
        """Make the content read-only, against accidents: a model that writes beside itself would spoil the digest."""
        with contextlib.suppress(OSError):
            for root, _, names in os.walk(self.entry / "fetched"):
                for name in names:
                    Path(root, name).chmod(0o444)
                Path(root).chmod(0o555)


class Cache:
    """The entries of one directory."""

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    def lease(self, sha256: str, name: str) -> Lease:
        """The entry of a model, made if need be. CacheFailure. A file's `name` counts: Python imports it by that."""
        entry = self._directory / f"{sha256}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        try:
            while True:
                entry.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):  # removed at this moment: make it anew
                    use = _opened(entry / "use")
                    if not _locked(use, fcntl.LOCK_SH, _MOMENT_SECONDS):
                        os.close(use)
                        raise CacheFailure(f"{entry.name[:12]} is locked by another pod")
                    if _is_still(entry / "use", use):
                        os.utime(use)
                        return Lease(entry, use)
                    os.close(use)
        except OSError as error:
            raise CacheFailure(f"{self._directory}: {error.strerror}") from error

    def evict(self, max_bytes: int | None = None) -> None:
        """Remove what was used longest ago and isn't in use, until the rest has at most that many bytes."""
        limit = self._max_bytes if max_bytes is None else max_bytes
        entries = []
        for entry in self._directory.iterdir():
            if entry.name.startswith(_TRASH):
                remove(entry)  # whoever began to was killed
            else:
                with contextlib.suppress(OSError):
                    entries.append(((entry / "use").stat().st_mtime_ns, _size(entry), entry))
        total = sum(size for _, size, _ in entries)
        for _, size, entry in sorted(entries):
            if total <= limit:
                return
            if self._removed(entry):
                total -= size
                _log.info("removed from the node's cache", entry=entry.name[:12], bytes=size)

    def _removed(self, entry: Path) -> bool:
        with contextlib.suppress(OSError):
            use = _opened(entry / "use", os.O_RDWR)
            try:
                if _locked(use, fcntl.LOCK_EX, 0) and _is_still(entry / "use", use):
                    trash = self._directory / f"{_TRASH}{os.urandom(8).hex()}"
                    entry.rename(trash)
                    remove(trash)
                    return True
            finally:
                os.close(use)
        return False


def _opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o660)


def _locked(file: int, kind: int, seconds: float) -> bool:
    """Whether the lock was got within `seconds`. OSError where the volume has no locks."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


def _is_still(path: Path, file: int) -> bool:
    """Whether the open `file` is what lies at `path`: another pod may have removed it before the lock was got."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(file))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise


def _size(entry: Path) -> int:
    with contextlib.suppress(OSError, LoadFailure):
        return sum(file.stat().st_size for file in regular_files(entry))
    return 0
