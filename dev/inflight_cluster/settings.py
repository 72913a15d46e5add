"""A real Kubernetes cluster on this machine. The environment chooses:

INFLIGHT_CLUSTER_NAME   runs another instance beside the first (a short DNS label; default "local")
INFLIGHT_CACHE          built binaries, base image, wheels (default ~/.cache/inflight)
INFLIGHT_HPA_SYNC       the HPA controller's period from this `up` on, e.g. "5s" (Kubernetes' default: 15s)
CLUSTER                 "kind" uses kind and Docker instead of running the components on this machine
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inflight_cluster.errors import ClusterError
from inflight_cluster.layout import Layout

REPOSITORY = Path(__file__).resolve().parents[2]
_STATE = Path("/var/lib/inflight")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,20}")
_DURATION = re.compile(r"(\d+(ms|s|m))+")


@dataclass(frozen=True)
class Settings:
    """One cluster's name and places; everything that must be unique on the machine derives from `name`."""

    name: str
    cache: Path
    state: Path
    backend: Literal["local", "kind"] = "local"
    hpa_sync: str | None = None

    @property
    def layout(self) -> Layout:
        return Layout(name=f"inflight-{self.name}", state=self.state)


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Settings of this process. Raises ClusterError for a name or duration that cannot be used."""
    name = environ.get("INFLIGHT_CLUSTER_NAME") or "local"
    if not _NAME.fullmatch(name):
        raise ClusterError(f"INFLIGHT_CLUSTER_NAME={name!r}: use at most 21 of a-z, 0-9 and '-', a letter first")
    hpa_sync = environ.get("INFLIGHT_HPA_SYNC", "")
    if hpa_sync and not _DURATION.fullmatch(hpa_sync):
        raise ClusterError(f"INFLIGHT_HPA_SYNC={hpa_sync!r} is not a duration such as 5s")
    backend = environ.get("CLUSTER") or "local"
    if backend not in ("local", "kind"):
        raise ClusterError(f"CLUSTER={backend!r}: known are 'local' and 'kind'")
    cache = cache_directory(environ)
    return Settings(
        name=name,
        cache=cache,
        state=cache / "kind" / name if backend == "kind" else _STATE / name,
        backend="kind" if backend == "kind" else "local",
        hpa_sync=hpa_sync or None,
    )


def cache_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """INFLIGHT_CACHE, or inflight/ in the user's cache directory."""
    if chosen := environ.get("INFLIGHT_CACHE"):
        return Path(chosen)
    base = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/root")) / ".cache"
    return Path(base) / "inflight"
