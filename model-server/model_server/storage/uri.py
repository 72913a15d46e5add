"""Model URIs: which are acceptable at all. The CRD refuses most of these earlier; this holds where there is no CRD."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from model_server.errors import LoadFailure, Reason

MAX_LENGTH: Final = 2048
_LATER: Final = frozenset(("gs", "az", "pvc"))
_SCHEMES: Final = frozenset(("https", "http", "s3", "image", "file"))
_BUCKET: Final = re.compile(r"[a-z0-9A-Z][a-z0-9A-Z._-]{1,254}")


@dataclass(frozen=True)
class ModelUri:
    """A checked URI. `path` has no leading slash for s3, and is a file's path for file."""

    scheme: str
    text: str
    host: str
    path: str

    @property
    def name(self) -> str:
        """The last part of the path, for the file on disk; "model" where there is none that will do."""
        last = unquote(self.path.rstrip("/").rsplit("/", 1)[-1])
        return last if re.fullmatch(r"[\w.@+=-]{1,200}", last) and last.strip(".") else "model"


def parse(text: str, *, sha256: str, local_files: bool) -> ModelUri:
    """LoadFailure(InvalidSettings) unless `text` may be fetched; `local_files` allows paths of this machine."""
    if len(text) > MAX_LENGTH or not text.isprintable() or "\\" in text or " " in text:
        raise _refused(text, f"must be printable, without blanks and backslashes, and at most {MAX_LENGTH} characters")
    if "://" not in text:
        text = f"file://{Path(text).expanduser().absolute()}" if local_files else text
    scheme, separator, _ = text.partition("://")
    if scheme in _LATER:
        raise _refused(text, f"{scheme}:// is not supported by this server: use s3:// or https://")
    if not separator or scheme not in _SCHEMES:
        raise _refused(text, "must begin with https://, http://, s3:// or image://")
    if scheme == "file":
        return _file(text, local_files)
    if scheme == "image":
        return ModelUri(scheme, text, "", text.removeprefix("image://"))
    return _remote(text, scheme, sha256)


def _file(text: str, local_files: bool) -> ModelUri:
    if not local_files:
        raise _refused(text, "files of the server's own machine are served from the command line only (--model)")
    path = text.removeprefix("file://")
    if not path.startswith("/"):
        raise _refused(text, "must be file:// and an absolute path")
    return ModelUri("file", text, "", path)


def _remote(text: str, scheme: str, sha256: str) -> ModelUri:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _refused(text, f"is no URL: {error}") from error
    if not host:
        raise _refused(text, "names no host" if scheme != "s3" else "names no bucket")
    if "@" in parts.netloc:
        raise _refused(f"{scheme}://...@{host}", "must not carry a user or password; use a Secret")
    if ".." in _decoded(parts.path).split("/"):
        raise _refused(text, "must not contain '..'")
    if scheme == "http" and not sha256:
        raise _refused(text, "needs a sha256: plain http can be changed on the way. Give one, or use https")
    if scheme == "s3":
        if not _BUCKET.fullmatch(parts.netloc):
            raise _refused(text, "must be s3://BUCKET/KEY")
        if parts.query or parts.fragment or not parts.path.strip("/"):
            raise _refused(text, "must be s3://BUCKET/KEY, with a key and nothing after it")
        return ModelUri(scheme, text, parts.netloc, parts.path.lstrip("/"))
    return ModelUri(scheme, text, host, parts.path)


def _decoded(path: str) -> str:
    """`path` with every layer of percent-encoding undone, so that no layer can hide a '..'."""
    while (decoded := unquote(path)) != path:
        path = decoded
    return path.replace("\\", "/")


def _refused(text: str, why: str) -> LoadFailure:
    return LoadFailure(Reason.INVALID_SETTINGS, f"model URI {text[:200]!r} {why}")
