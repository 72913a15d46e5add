"""Recognises pickles by content, in whatever they are wrapped. It never unpickles and never executes anything.

This gives the *reason* of a refusal. What makes loading safe is that nothing in this server unpickles at all: a model
is served only when it is positively ONNX, skops or (when asked for) Python source.
"""

from __future__ import annotations

import bz2
import lzma
import pickletools  # nosec B403 # it reads opcodes, it runs none
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from model_server.errors import LoadFailure, Reason

_SAMPLE: Final = 64 * 1024
_MAX_MEMBERS: Final = 10_000
_PROTOCOL_0_TAIL: Final = b"."

_DECOMPRESSORS: Final[tuple[tuple[bytes, Callable[[], Any]], ...]] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(zlib.MAX_WBITS | 16)),
    (b"\x78", zlib.decompressobj),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", lzma.LZMADecompressor),
    (b"\x5d\x00", lzma.LZMADecompressor),
)


def refuse(path: Path) -> None:
    """LoadFailure(UnsafeFormat) when `path` is a pickle, or holds one: compressed, in a zip, as an object array."""
    with path.open("rb") as file:
        if is_pickle(file.read(_SAMPLE)) or _ends_like_protocol_0(file):
            raise _unsafe(path.name)
    if zipfile.is_zipfile(path):
        _refuse_members(path)


def is_pickle(head: bytes, depth: int = 3) -> bool:
    """Whether data that begins with `head` (64 KiB or all of it) is a pickle, also compressed up to `depth` times."""
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5:
        return True
    if head.startswith(b"\x93NUMPY"):
        return b"O'" in head[:256] or b'O"' in head[:256]
    if depth:
        for magic, decompressor in _DECOMPRESSORS:
            if head.startswith(magic):
                return is_pickle(_beginning(decompressor(), head), depth - 1)
    return _is_protocol_0(head)


def is_compressed(head: bytes) -> bool:
    """Whether data beginning with `head` is a compressed stream of a kind that pickles come in."""
    return any(head.startswith(magic) and _beginning(make(), head) for magic, make in _DECOMPRESSORS)


def _beginning(decompressor: Any, data: bytes) -> bytes:
    try:
        return bytes(decompressor.decompress(data, _SAMPLE))
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError):
        return b""


def _is_protocol_0(data: bytes) -> bool:
    """Protocol 0 and 1 have no magic: such a pickle is what pickletools can read up to its STOP opcode."""
    if not data[:1].isascii() or _PROTOCOL_0_TAIL not in data:
        return False
    opcodes = 0
    try:
        for opcode, _, _ in pickletools.genops(data):
            opcodes += 1
            if opcode.name == "STOP":
                return opcodes > 1
    except Exception:
        return False
    return False


def _ends_like_protocol_0(file: BinaryIO) -> bool:
    """A protocol 0 pickle larger than the sample: read as a whole, if it still is of a size to be read."""
    size = file.seek(0, 2)
    if not _SAMPLE < size <= 512 * _SAMPLE:
        return False
    file.seek(-1, 2)
    if file.read(1) != _PROTOCOL_0_TAIL:
        return False
    file.seek(0)
    return _is_protocol_0(file.read())


def _refuse_members(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MAX_MEMBERS:
                raise LoadFailure(
                    Reason.UNSUPPORTED_FORMAT, f"{path.name} is a zip of {len(members)} files, at most {_MAX_MEMBERS}"
                )
            for member in members:
                with archive.open(member) as file:
                    head = file.read(_SAMPLE)
                if member.filename.endswith((".pkl", ".pickle")) or is_pickle(head):
                    raise _unsafe(f"{path.name} ({member.filename[:100]!r} in it)")
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError, OSError) as error:
        raise LoadFailure(Reason.UNSUPPORTED_FORMAT, f"{path.name} is a broken or encrypted zip") from error


def _unsafe(what: str) -> LoadFailure:
    return LoadFailure(
        Reason.UNSAFE_FORMAT,
        f"{what} is a pickle: loading one runs whatever code is in it, so this server never does. "
        "Export the model to ONNX or skops",
    )
