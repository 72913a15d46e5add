"""Model URIs: which are acceptable at all. The CRD refuses most of these earlier; this holds where there is no CRD."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from model_server.errors import LoadFailure, Reason

MAX_LENGTH: Final = 2048
_SCHEMES: Final = frozenset(("https", "http", "s3", "gs", "az", "pvc", "image", "file"))
_NAMED: Final = {
    "s3": ("s3://BUCKET/KEY", re.compile(r"s3://[a-zA-Z0-9][a-zA-Z0-9._-]{1,254}/+[^/].*")),
    "gs": ("gs://BUCKET/OBJECT", re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/+[^/].*")),
    "az": ("az://ACCOUNT/CONTAINER/BLOB", re.compile(r"az://[a-z0-9]{3,24}/[a-z0-9](-?[a-z0-9]){2,62}/+[^/].*")),
    "pvc": ("pvc://CLAIM/PATH", re.compile(r"pvc://[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/+[^/].*")),
}
"""What a URI looks like whose first part is no host. Names as the stores themselves allow them."""


@dataclass(frozen=True)
class ModelUri:
    """A checked URI.

    `host` is the bucket of s3 and gs, the account of az, the claim of pvc. Their `path` has no leading slash; that of
    file is a file's.
    """

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
    if not separator or scheme not in _SCHEMES:
        raise _refused(text, "must begin with https://, http://, s3://, gs://, az://, pvc:// or image://")
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
    if "@" in parts.netloc:
        raise _refused(f"{scheme}://...@{host}", "must not carry a user or password; use a Secret")
    if ".." in _decoded(parts.path).split("/"):
        raise _refused(text, "must not contain '..'")
    if scheme in _NAMED:
        shape, pattern = _NAMED[scheme]
        if not pattern.fullmatch(text) or parts.query or parts.fragment:
            raise _refused(text.partition("?")[0], f"must be {shape}, with nothing after it")
        return ModelUri(scheme, text, parts.netloc, parts.path.lstrip("/"))
    if not host:
        raise _refused(text, "names no host")
    if scheme == "http" and not sha256:
        raise _refused(text, "needs a sha256: plain http can be changed on the way. Give one, or use https")
    return ModelUri(scheme, text, host, parts.path)


def _decoded(path: str) -> str:
    """`path` with every layer of percent-encoding undone, so that no layer can hide a '..'."""
    while (decoded := unquote(path)) != path:
        path = decoded
    return path.replace("\\", "/")


def _refused(text: str, why: str) -> LoadFailure:
    return LoadFailure(Reason.INVALID_SETTINGS, f"model URI {text[:200]!r} {why}")
