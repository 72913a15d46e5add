"""What an archive may hold: files and directories with plain names, each once, and not more than allowed.

Decides entry by entry and knows neither the archive's format nor the disk. The first violation refuses all of it.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

from model_server.errors import LoadFailure, Reason
from model_server.storage.files import MAX_FILES

_MAX_RATIO: Final = 100
_ALWAYS_ALLOWED_BYTES: Final = 16 * 1024**2
"""Of small archives the ratio says nothing: text compresses a hundredfold."""
_MAX_NAME_BYTES: Final = 1024
_MAX_PART_BYTES: Final = 255
_DRIVE: Final = re.compile(r"[A-Za-z]:")


class UnsafeArchive(LoadFailure):
    """An archive that breaks a rule, or isn't what its name says."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.UNSAFE_ARCHIVE, message)


class Contents:
    """What has been found in one archive so far."""

    def __init__(self, archive_bytes: int, max_bytes: int) -> None:
        """`max_bytes` bounds the archive and what is in it together: both lie on the disk. UnsafeArchive."""
        by_ratio = max(_ALWAYS_ALLOWED_BYTES, _MAX_RATIO * archive_bytes)
        self._bytes = 0
        self._limit = min(max_bytes - archive_bytes, by_ratio)
        self._why = f"a hundred times its {archive_bytes} bytes" if self._limit == by_ratio else f"{max_bytes} allowed"
        self._files: set[PurePosixPath] = set()
        self._directories: set[PurePosixPath] = set()

    def admit(self, name: str, *, directory: bool) -> PurePosixPath:
        """The relative path for an entry, "." for the top. UnsafeArchive."""
        path = _plain(name)
        if path in self._files or any(parent in self._files for parent in path.parents):
            raise UnsafeArchive(f"two entries are named {name[:200]!r}, or one lies in what is a file")
        if not directory:
            if path in self._directories or not path.parts:
                raise UnsafeArchive(f"{name[:200]!r} is a file and a directory")
            self._files.add(path)
        self._directories.update(path.parents if not directory else (path, *path.parents))
        if len(self._files) + len(self._directories) > MAX_FILES:
            raise UnsafeArchive(f"it has more than {MAX_FILES} entries")
        return path

    def grow(self, count: int) -> None:
        """`count` bytes more of content. UnsafeArchive."""
        self._bytes += count
        if self._bytes > self._limit:
            raise UnsafeArchive(f"its content is larger than {self._why}")


def _plain(name: str) -> PurePosixPath:
    problem = _problem(name)
    if problem:
        raise UnsafeArchive(f"an entry named {name[:200]!r} {problem}")
    return PurePosixPath(name)


def _problem(name: str) -> str:
    parts = name.split("/")
    if not name.isprintable() or len(_bytes(name)) > _MAX_NAME_BYTES:
        return f"has a control character, is no text, or has over {_MAX_NAME_BYTES} bytes"
    if any(len(_bytes(part)) > _MAX_PART_BYTES for part in parts):
        return f"has a part of over {_MAX_PART_BYTES} bytes"
    if "\\" in name or _DRIVE.match(name):
        return "means another place on another system"
    if not name or name.startswith("/") or ".." in parts:
        return "may lead out of the model's directory"
    return ""


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
