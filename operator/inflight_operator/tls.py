"""The operator's own TLS files: a directory with ca.crt, tls.crt and tls.key, as the kubelet mounts a TLS Secret.

Whoever renews them swaps the link `..data` to a new directory, so that a certificate is never read with the key of the
one before.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

_LINK = "..data"


@dataclass(frozen=True)
class Material:
    """PEM: the authorities to believe, our certificate, its key."""

    ca: bytes
    certificate: bytes
    key: bytes


def directory(mounted: Path) -> Path:
    """Where the files that belong together lie now."""
    link = mounted / _LINK
    return link.resolve() if link.is_symlink() else mounted


def read(mounted: Path) -> Material:
    """What is in force now. OSError when there is nothing yet."""
    where = directory(mounted)
    return Material(*((where / name).read_bytes() for name in ("ca.crt", "tls.crt", "tls.key")))


def write(mounted: Path, material: Material) -> None:
    """Put `material` into force, all of it at once. OSError."""
    mounted.mkdir(parents=True, exist_ok=True)
    before = directory(mounted)
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=mounted))
    for name, content in (("ca.crt", material.ca), ("tls.crt", material.certificate), ("tls.key", material.key)):
        descriptor = os.open(fresh / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    link = mounted / f"{_LINK}_new"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(mounted / _LINK)
    if before != mounted:
        shutil.rmtree(before, ignore_errors=True)
