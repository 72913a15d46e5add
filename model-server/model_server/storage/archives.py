"""Unpacking archives: tar (plain, gzip, zstd) and zip, read as a stream, entry by entry, by the rules of archive_rules.

The formats are the standard library's business; what may be in them, and how much of it may lie in memory, is ours.
"""

from __future__ import annotations

import gzip
import stat
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, cast

from model_server.errors import LoadFailure, Reason, first_line
from model_server.storage.archive_rules import Contents, UnsafeArchive
from model_server.storage.files import MAX_FILES, DiskFailure, remove, single, writing
from model_server.storage.transfer import Budget

_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip")
_CHUNK: Final = 256 * 1024
_PART: Final = ".unpacking"
_MAX_HEADER_BYTES: Final = 256 * 1024
"""Of one tar entry, extended headers included, which tarfile reads into memory; also of what may follow the last."""
_MAX_DIRECTORY_BYTES: Final = 4 * 1024**2
"""Of a zip's directory, which zipfile reads into memory: over 400 for each of the entries that are allowed."""
_MAX_ZSTD_WINDOW: Final = 25
"""2^25 bytes: what zstd's levels up to 20 need; 22 would take 128 MiB of memory."""
_ZIP_HEADER_BYTES: Final = 30
"""Of an entry, without its name."""
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID
_DAMAGE: Final = (tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, NotImplementedError)


@dataclass(frozen=True)
class Entry:
    """One file or directory of an archive."""

    name: str
    directory: bool
    read: Callable[[int], bytes] = lambda _count: b""
    """The next bytes of a file, at most that many; none at its end. Only until the next entry is asked for."""


def kind(path: str) -> str:
    """The kind of archive that a file of that name is, as its suffix; "" for none."""
    return next((suffix for suffix in _SUFFIXES if path.lower().endswith(suffix)), "")


def unpack(archive: Path, kind: str, directory: Path, budget: Budget) -> Path:
    """The content of `archive`, as `directory`/unpacked or its only file. Blocks.

    LoadFailure: UnsafeArchive, UnsupportedFormat (nothing in it, no library), FetchFailed (disk, time); then nothing
    of it stays.
    """
    final = directory / "unpacked"
    try:
        for left_over in (*directory.glob(f"{_PART}*"), final):
            remove(left_over)
        part = Path(tempfile.mkdtemp(prefix=_PART, dir=directory))
    except OSError as error:
        raise DiskFailure(f"can't write to the model directory: {error.strerror}") from error
    try:
        with archive.open("rb") as file:
            _write(_entries(file, kind), part, Contents(archive.stat().st_size, budget.max_bytes), budget)
        if not any(part.iterdir()):
            raise LoadFailure(Reason.UNSUPPORTED_FORMAT, f"there is nothing in {archive.name}")
        with writing(final):
            part.chmod(0o755)
            part.rename(final)
    except UnsafeArchive as refused:
        raise UnsafeArchive(f"{archive.name}: {refused.message}") from refused
    finally:
        remove(part)
    return single(final)


def _write(entries: Iterator[Entry], part: Path, contents: Contents, budget: Budget) -> None:
    made = {part}
    for entry in entries:
        target = part / contents.admit(entry.name, directory=entry.directory)
        directory = target if entry.directory else target.parent
        with writing(target):
            if directory not in made:
                directory.mkdir(parents=True, exist_ok=True)
                made.add(directory)
            if not entry.directory:
                _copy(entry, target, contents, budget)


def _copy(entry: Entry, target: Path, contents: Contents, budget: Budget) -> None:
    with target.open("xb") as file:
        while chunk := _sound(entry.read, _CHUNK):
            contents.grow(len(chunk))
            budget.check(0)
            file.write(chunk)


def _entries(file: IO[bytes], kind: str) -> Iterator[Entry]:
    entries = _zip(file) if kind == ".zip" else _tar(file, kind)
    while (entry := _sound(next, entries, None)) is not None:
        yield entry


def _sound(read: Callable[..., Any], *arguments: Any) -> Any:
    """What `read` answers. UnsafeArchive when it finds the archive damaged."""
    try:
        return read(*arguments)
    except (*_DAMAGE, RecursionError) as error:
        raise UnsafeArchive(f"it is damaged, or isn't what its name says: {first_line(error)}") from error


# tar -----------------------------------------------------------------------------------------------------------------


class _Metered:
    """A stream that refuses to be read further than `left` bytes."""

    def __init__(self, stream: IO[bytes], damage: type[Exception]) -> None:
        self._stream, self._damage = stream, damage
        self.left = _MAX_HEADER_BYTES

    def read(self, count: int) -> bytes:
        try:
            data = self._stream.read(count)
        except self._damage as error:
            raise tarfile.ReadError(first_line(error)) from error
        self.left -= len(data)
        if self.left < 0:
            raise UnsafeArchive(f"an entry has a header, or the archive an end, of over {_MAX_HEADER_BYTES} bytes")
        return data


def _tar(file: IO[bytes], kind: str) -> Iterator[Entry]:
    stream = _Metered(*_inflated(file, kind))
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined] # or it would keep every header
            yield _tar_entry(tar, member, stream)
            stream.left = _MAX_HEADER_BYTES
        while stream.read(_CHUNK):  # to the end, where gzip and zstd have their checksums
            pass


def _tar_entry(tar: tarfile.TarFile, member: tarfile.TarInfo, stream: _Metered) -> Entry:
    if member.isdir():
        return Entry(member.name, directory=True)
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse() or member.mode & _SET_ID:
        raise UnsafeArchive(f"{member.name[:200]!r} is a link, a device, sparse or set-user-id, not a plain file")
    stream.left = member.size + _MAX_HEADER_BYTES
    data = tar.extractfile(member)
    return Entry(member.name, directory=False, read=cast(IO[bytes], data).read)


def _inflated(file: IO[bytes], kind: str) -> tuple[IO[bytes], type[Exception]]:
    """The tar in the file, and what reading it raises when it is damaged."""
    if kind == ".tar":
        return file, EOFError
    if kind in (".tar.gz", ".tgz"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file)), zlib.error
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415
        else:
            from backports import zstd  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise LoadFailure(
            Reason.UNSUPPORTED_FORMAT, "this image can't read zstd: install inflight-model-server[zstd]"
        ) from error
    options = {int(zstd.DecompressionParameter.window_log_max): _MAX_ZSTD_WINDOW}
    return cast(IO[bytes], zstd.ZstdFile(file, options=options)), zstd.ZstdError


# zip -----------------------------------------------------------------------------------------------------------------


class _Modest:
    """A file that refuses to give more than a zip's directory may have at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable, self.close = file.seek, file.tell, file.seekable, file.close

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(count if 0 <= count <= _MAX_DIRECTORY_BYTES else _MAX_DIRECTORY_BYTES + 1)
        if len(data) > _MAX_DIRECTORY_BYTES:
            raise UnsafeArchive(f"its directory has over {_MAX_DIRECTORY_BYTES} bytes")
        return data


def _zip(file: IO[bytes]) -> Iterator[Entry]:
    with zipfile.ZipFile(cast(IO[bytes], _Modest(file))) as archive:
        members = archive.infolist()
        if len(members) > MAX_FILES:
            raise UnsafeArchive(f"it has more than {MAX_FILES} entries")
        _apart(members, archive.start_dir)
        for member in members:
            _plain_member(member)
        for member in members:
            if member.is_dir():
                yield Entry(member.filename, directory=True)
            else:
                with archive.open(member) as data:
                    yield Entry(member.filename, directory=False, read=data.read)


def _apart(members: list[zipfile.ZipInfo], end: int) -> None:
    """UnsafeArchive when entries share bytes: a few of them would stand for many."""
    for member in sorted(members, key=lambda member: member.header_offset, reverse=True):
        header = _ZIP_HEADER_BYTES + len(member.orig_filename.encode(errors="surrogateescape"))
        if member.header_offset + header + member.compress_size > end:
            raise UnsafeArchive(f"{member.filename[:200]!r} overlaps another entry")
        end = member.header_offset


def _plain_member(member: zipfile.ZipInfo) -> None:
    name, mode = member.filename, member.external_attr >> 16
    if member.orig_filename != name:
        raise UnsafeArchive(f"{name[:200]!r} is not its whole name")
    if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnsafeArchive(f"{name[:200]!r} is encrypted, or compressed by another method than deflate")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR) or (mode & _SET_ID and not member.is_dir()):
        raise UnsafeArchive(f"{name[:200]!r} is a link, a device or set-user-id, not a plain file")
