"""Writes a one-layer OCI image archive without any image builder: enough for a static binary.

The same files give the same bytes, so an archive can be cached by what is in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """This machine, in the words of image configurations."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


def write(archive: Path, reference: str, files: Mapping[str, bytes], entrypoint: Sequence[str], user: str) -> None:
    """An archive with `files` (path in the image → content, all executable) that `ctr images import` reads."""
    blobs: dict[str, bytes] = {}
    layer = _tar({name: (content, 0o755) for name, content in files.items()})
    config = {
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "User": user, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _store(blobs, _CONFIG, json.dumps(config).encode()),
        "layers": [_store(blobs, _LAYER, layer)],
    }
    described = _store(blobs, _MANIFEST, json.dumps(manifest).encode())
    described["annotations"] = {"org.opencontainers.image.ref.name": reference}
    index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [described]}
    content = {f"blobs/sha256/{digest}": (blob, 0o644) for digest, blob in blobs.items()}
    content |= {"index.json": (json.dumps(index).encode(), 0o644)}
    content |= {"oci-layout": (b'{"imageLayoutVersion":"1.0.0"}', 0o644)}
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(".partial")
    partial.write_bytes(_tar(content))
    partial.replace(archive)


def _store(blobs: dict[str, bytes], media_type: str, blob: bytes) -> dict[str, Any]:
    digest = _digest(blob)
    blobs[digest.removeprefix("sha256:")] = blob
    return {"mediaType": media_type, "digest": digest, "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (content, mode) in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
