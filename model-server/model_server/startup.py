"""Fetch, load, warm up: each phase timed. It blocks, so the server runs it on a thread of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from model_server import cpus
from model_server.models import loading
from model_server.models.base import Model
from model_server.settings import Settings
from model_server.storage.fetching import fetch

_log = structlog.get_logger()

Observe = Callable[[str, float], None]
"""(phase, seconds)."""


@dataclass(frozen=True)
class Loaded:
    """A warm model, and what it was made of."""

    model: Model
    digest: str
    """sha256 of what was fetched, hexadecimal."""


def start(settings: Settings, model_dir: Path, observe: Observe) -> Loaded:
    """The model, warm. LoadFailure says why there is none."""
    model = settings.model
    with _timed("fetch", observe):
        fetched = fetch(model, settings.storage, model_dir)
    _log.info("model fetched", uri=model.uri, sha256=fetched.digest)
    if fetched.lease is not None:  # shared: a package's bytecode must not come to lie beside it
        sys.dont_write_bytecode = True
    threads = cpus.threads_per_prediction(settings.concurrency, cpus.available())
    with _timed("load", observe):
        loaded = loading.load(fetched.path, model.format, model.entrypoint, threads, settings.storage.max_bytes)
    with _timed("warmup", observe):
        outcome = loading.warm_up(loaded)
    _log.info("model loaded", platform=loaded.metadata.platform, threads=threads, warm_up=outcome)
    return Loaded(loaded, fetched.digest)


@contextmanager
def _timed(phase: str, observe: Observe) -> Iterator[None]:
    started = time.perf_counter()
    yield
    observe(phase, time.perf_counter() - started)
