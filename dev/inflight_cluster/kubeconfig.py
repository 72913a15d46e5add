"""Kubeconfig files, written as JSON, which every YAML reader accepts."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from inflight_cluster.pki import Pair


def write(path: Path, *, server: str, ca: Path, client: Pair, name: str = "inflight") -> Path:
    """A kubeconfig at `path` (mode 0600) with the certificates inlined, so that the file can be moved."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": _base64(ca)}}],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": _base64(client.certificate),
                    "client-key-data": _base64(client.key),
                },
            }
        ],
    }
    path.touch(mode=0o600, exist_ok=True)
    path.write_text(json.dumps(config, indent=1))
    return path


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
