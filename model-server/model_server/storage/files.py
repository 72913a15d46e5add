"""Models on disk: regular files only, and their digests."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from model_server.errors import LoadFailure, Reason

MAX_FILES: Final = 10_000


class DiskFailure(LoadFailure):
    """What arrives can't be written here."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.FETCH_FAILED, message)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """OSError as DiskFailure. For code whose network errors have another type."""
    try:
        yield
    except OSError as error:
        raise DiskFailure(f"writing {path.name[:200]!r} failed: {error.strerror}") from error


def remove(directory: Path) -> None:
    """Whatever is there, write-protected or not; what can't be removed stays."""
    if directory.is_symlink():
        directory.unlink(missing_ok=True)
        return
    for root, _, _ in os.walk(directory):
        with contextlib.suppress(OSError):
            os.chmod(root, 0o700)
    shutil.rmtree(directory, ignore_errors=True)


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
        if len(files) > MAX_FILES:
            raise LoadFailure(Reason.UNSUPPORTED_FORMAT, f"the model has more than {MAX_FILES} files")
    return sorted(files, key=lambda path: path.relative_to(directory).as_posix().encode())


def digest(path: Path) -> str:
    """sha256 of a file; of a directory see `combined`."""
    if path.is_file():
        return _sha256(path)
    return combined({file.relative_to(path).as_posix(): _sha256(file) for file in regular_files(path)})


def combined(hashes: Mapping[str, str]) -> str:
    """The digest for files {path: sha256}: an only file's own, else of what `sha256sum` prints, sorted by path."""
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = (f"{hashes[name]}  {name}\n" for name in sorted(hashes, key=str.encode))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def matching(path: Path, sha256: str) -> Path | None:
    """The model at `path`, or its only file, if it is there and has this digest."""
    try:
        path = single(path) if path.is_dir() and not path.is_symlink() else path
        there = path.is_file() or any(path.iterdir())
        return path if there and digest(path) == sha256 else None
    except (OSError, LoadFailure):
        return None
