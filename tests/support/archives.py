"""Builders of archives, good and hostile."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

from backports import zstd


def tar_entry(name: str, content: bytes = b"abc", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A member; `fields` are those of TarInfo, such as type, mode, linkname."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content


def tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar of these, whatever they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for member, content in entries:
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def packed(suffix: str, files: Iterable[tuple[str, bytes]]) -> bytes:
    """An honest archive of the kind that `suffix` says; names that end in "/" are directories."""
    if suffix == ".zip":
        return zipped(*((name, content, {}) for name, content in files))
    entries = [
        tar_entry(name.rstrip("/"), b"", type=tarfile.DIRTYPE) if name.endswith("/") else tar_entry(name, content)
        for name, content in files
    ]
    compress: dict[str, Callable[[bytes], bytes]] = {".tgz": gzip.compress, ".tar.gz": gzip.compress}
    return (compress | {".tar.zst": _zstd}).get(suffix, lambda data: data)(tar(*entries))


def _zstd(data: bytes) -> bytes:
    return zstd.compress(data, options={int(zstd.CompressionParameter.checksum_flag): 1})


def zipped(*entries: tuple[str, bytes, dict[str, Any]]) -> bytes:
    """A zip of (name, content, fields of ZipInfo)."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # zipfile warns of names that are there twice
        for name, content, fields in entries:
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            for field, value in fields.items():
                setattr(member, field, value)
            archive.writestr(member, content)
    return out.getvalue()


def unix_mode(kind: int, permissions: int = 0o644) -> dict[str, Any]:
    """Fields of a zip's entry that is of this kind (stat.S_IFLNK, ...)."""
    return {"create_system": 3, "external_attr": (stat.S_IFMT(kind) | permissions) << 16}


def overlapping_zip(times: int, size: int) -> bytes:
    """A zip whose directory names one compressed file many times: few bytes that stand for very many."""
    one = zipped(("a", bytes(size), {}))
    end = one.rindex(b"PK\x05\x06")
    (start,) = struct.unpack("<L", one[end + 16 : end + 20])
    record = one[start:end]
    assert record[28:30] == b"\x01\x00", "the name has one byte"
    directory = b"".join(record[:46] + bytes([97 + number]) + record[47:] for number in range(times))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, times, times, len(directory), start, 0)
    return one[:start] + directory + tail
