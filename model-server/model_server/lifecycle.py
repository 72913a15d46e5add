"""What the server is doing: starting, ready, draining. Readiness and the served model live here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from model_server.cache.caching import Caching
from model_server.dispatcher import Dispatcher
from model_server.errors import Code, Problem
from model_server.models.base import Metadata


class Phase(Enum):
    """starting → ready → draining; draining may also come straight after starting."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True)
class Served:
    """The loaded model and what is known about it."""

    metadata: Metadata
    dispatcher: Dispatcher | Caching
    """Where its predictions are asked for."""
    digest: str
    """sha256 of what was loaded, hexadecimal."""
    version: str
    """The revision, or the digest's first 8 digits where there is none."""
    hangs: Callable[[], bool] = lambda: False
    """Whether every slot has been computing for far longer than any request may."""


class Lifecycle:
    """The phase, the name that is served, and the model once it is loaded and warm."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.phase = Phase.STARTING
        self.served: Served | None = None

    @property
    def ready(self) -> bool:
        """Whether new traffic should be sent here."""
        return self.phase is Phase.READY

    @property
    def draining(self) -> bool:
        """Whether clients should go elsewhere; requests that come are answered all the same."""
        return self.phase is Phase.DRAINING

    def loaded(self, served: Served) -> None:
        """The model is warm: ready, unless a stop was asked for meanwhile."""
        self.served = served
        if self.phase is Phase.STARTING:
            self.phase = Phase.READY

    def drain(self) -> None:
        """A stop was asked for."""
        self.phase = Phase.DRAINING

    def known(self, name: str, version: str | None = None) -> None:
        """Problem(model_not_found) unless `name` (and `version`) is what this server serves."""
        right_version = version is None or self.served is None or version == self.served.version
        if name != self.name or not right_version:
            raise Problem(Code.MODEL_NOT_FOUND, "this server has no such model or version; GET /v1/models lists it")

    def get(self, name: str, version: str | None = None) -> Served:
        """The model by name. Problem: model_not_found, not_ready."""
        self.known(name, version)
        if self.served is None:
            raise Problem(Code.NOT_READY, "the model is still being fetched and loaded", retry_after_ms=1000)
        return self.served
