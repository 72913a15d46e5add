"""Fetched bytes on disk: counted, hashed and bounded while they come in, in sight only when they are all there."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from model_server.errors import LoadFailure, Reason

_MAX_FILES: Final = 10_000


@dataclass
class Budget:
    """What a fetch may still use, all its files and attempts together."""

    max_bytes: int
    seconds: float
    started: float = field(default_factory=time.monotonic)

    def spend(self, count: int, so_far: int) -> None:
        """LoadFailure(FetchFailed) when `count` more bytes after `so_far` are too many, or too late."""
        if so_far + count > self.max_bytes:
            raise LoadFailure(Reason.FETCH_FAILED, f"the model is larger than {self.max_bytes} bytes")
        if self.left() <= 0:
            raise LoadFailure(Reason.FETCH_FAILED, f"the model did not arrive within {self.seconds:.0f} s")

    def left(self) -> float:
        """Seconds that remain."""
        return self.started + self.seconds - time.monotonic()


class Incoming:
    """A directory that is filled under a temporary name and renamed when it is complete."""

    def __init__(self, model_dir: Path, budget: Budget) -> None:
        self._budget = budget
        self._part = model_dir / ".incoming"
        self._final = model_dir / "fetched"
        self._hashes: dict[str, str] = {}
        self._bytes = 0
        try:
            for left_over in (self._part, self._final):
                shutil.rmtree(left_over, ignore_errors=True)
            self._part.mkdir(parents=True)
        except OSError as error:
            raise LoadFailure(Reason.FETCH_FAILED, f"can't write to the model directory: {error.strerror}") from error

    def add(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write and hash one file; `name` is relative. LoadFailure(FetchFailed): too large, too late, disk full.

        `chunks` must turn its own network errors into something that is no OSError.
        """
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or not relative.parts or not name.isprintable():
            raise LoadFailure(Reason.FETCH_FAILED, f"a file named {name[:200]!r} can't be stored safely")
        target = self._part / relative
        hashed, written = hashlib.sha256(), 0
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                for chunk in chunks:
                    self._budget.spend(len(chunk), self._bytes + written)
                    file.write(chunk)
                    hashed.update(chunk)
                    written += len(chunk)
        except OSError as error:
            raise LoadFailure(Reason.FETCH_FAILED, f"writing {name[:200]!r} failed: {error.strerror}") from error
        self._bytes += written
        self._hashes[relative.as_posix()] = hashed.hexdigest()

    def commit(self) -> tuple[Path, str]:
        """The finished directory, or the only file in it, and its digest."""
        self._part.rename(self._final)
        path = single(self._final)
        return path, combined(self._hashes) if path.is_dir() else next(iter(self._hashes.values()))


def single(directory: Path) -> Path:
    """The one file in `directory`, or the directory itself when there are several."""
    found = regular_files(directory)
    return found[0] if len(found) == 1 else directory


def regular_files(directory: Path) -> list[Path]:
    """Every file below `directory`, sorted by relative path.

    LoadFailure(UnsafeFormat) for symbolic links, devices and the like: a model is regular files in directories.
    """
    files = []
    for root, directories, names in os.walk(directory):
        for name in (*directories, *names):
            path = Path(root) / name
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise LoadFailure(Reason.UNSAFE_FORMAT, f"{name[:200]!r} is a link or a device, not a file")
            if stat.S_ISREG(mode):
                files.append(path)
        if len(files) > _MAX_FILES:
            raise LoadFailure(Reason.UNSUPPORTED_FORMAT, f"the model has more than {_MAX_FILES} files")
    return sorted(files, key=lambda path: path.relative_to(directory).as_posix().encode())


def digest(path: Path) -> str:
    """sha256 of a file; of a directory see `combined`."""
    if path.is_file():
        return _sha256(path)
    return combined({file.relative_to(path).as_posix(): _sha256(file) for file in regular_files(path)})


def combined(hashes: Mapping[str, str]) -> str:
    """One digest for several files {path: sha256}: the sha256 of what `sha256sum` prints for them, sorted by path."""
    lines = (f"{hashes[name]}  {name}\n" for name in sorted(hashes, key=str.encode))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
