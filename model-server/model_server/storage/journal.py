"""How far each piece of a fetch has come, kept beside the files: whoever comes after a kill goes on from there.

A file of one line, which says what is fetched, and then a number per piece: bytes up to there are in the file. The
number is written after the bytes, so after a kill it is never too high. After a power failure it may be; so without a
sha256 to tell in the end, a journal from before the machine's last start counts for nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from model_server.storage.remote import PIECE_BYTES, Remote

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_NUMBER: Final = 8
"""Bytes of a position, little-endian."""
_LARGE: Final = 64
_LARGE_TIMES: Final = 4
"""A file of so many pieces has larger ones: a server may want a new connection for each, and there are enough."""


def cuts(size: int) -> Iterator[tuple[int, int]]:
    """[start, stop) of each piece of a file of `size` bytes."""
    piece = PIECE_BYTES if size < _LARGE * PIECE_BYTES else _LARGE_TIMES * PIECE_BYTES
    for start in range(0, size, piece):
        yield start, min(start + piece, size)


def described(source: Sequence[str], remotes: Mapping[str, Remote], *, digest_known: bool) -> bytes | None:
    """What is fetched, in a line; None where nothing says that two parts belong together, or parts can't be had."""
    if not all(remote.ranges and (remote.version or digest_known) for remote in remotes.values()):
        return None
    boot = "" if digest_known else _boot()
    files = [[name, remote.size, remote.version] for name, remote in remotes.items()]
    # A URL may carry a signature that isn't for everybody who can read the volume.
    where = hashlib.sha256("\n".join(source).encode()).hexdigest()
    return (
        json.dumps(
            {"source": where, "boot": boot, "piece": [PIECE_BYTES, _LARGE, _LARGE_TIMES], "files": files}
        ).encode()
        + b"\n"
    )


class Journal:
    """See above. `note` may be called from several threads at once."""

    def __init__(self, path: Path, line: bytes, positions: Sequence[int]) -> None:
        """Written to `path` at once. OSError."""
        self.positions = tuple(positions)
        self._offset = len(line)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.pwrite(self._file, line + b"".join(map(_packed, positions)), 0)

    def note(self, piece: int, position: int) -> None:
        """Bytes of the piece with this number up to `position` are in its file. OSError."""
        os.pwrite(self._file, _packed(position), self._offset + piece * _NUMBER)

    def __del__(self) -> None:
        # Not before the last piece has forgotten it: a late thread must not write into what has this number by then.
        os.close(self._file)


def read(path: Path, line: bytes, files: Mapping[Path, int]) -> list[int] | None:
    """The positions in the journal at `path` if it is about `line` and fits `files` {path: size}, else None."""
    found = _parsed(path)
    if found is None or found[0] != line:
        return None
    rest = iter(found[1])
    for file, size in files.items():
        end = 0
        for start, stop in cuts(size):
            position = next(rest, -1)
            if not start <= position <= stop:
                return None
            end = position if position > start else end
        if end > _size(file):
            return None
    return found[1] if next(rest, None) is None else None


def missing(path: Path) -> tuple[int, int] | None:
    """[start, stop) of the first part that the only file of the journal at `path` lacks; its last byte if none."""
    found = _parsed(path)
    with contextlib.suppress(ValueError, LookupError, TypeError):
        if found is not None:
            ((_, size, _),) = json.loads(found[0])["files"]
            pairs = zip(cuts(size), found[1], strict=True)
            return next(((at, stop) for (_, stop), at in pairs if at < stop), (size - 1, size) if size else None)
    return None


def _parsed(path: Path) -> tuple[bytes, list[int]] | None:
    try:
        line, newline, rest = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    if not newline or len(rest) % _NUMBER:
        return None
    numbers = [int.from_bytes(rest[at : at + _NUMBER], "little") for at in range(0, len(rest), _NUMBER)]
    return line + newline, numbers


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:
        return 0


def _packed(position: int) -> bytes:
    return position.to_bytes(_NUMBER, "little")


def _boot() -> str:
    """What is unlike at each start of the machine; unlike anything where the system doesn't say."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return os.urandom(8).hex()
