"""Fetch, load, warm up: each phase timed; and where predictions will run, decided by the model's format."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from model_server import cpus, first_digest
from model_server.blocking import on_a_thread
from model_server.errors import LoadFailure
from model_server.executor import Executor, QuickExecutor, ThreadExecutor
from model_server.models import detect, loading
from model_server.models.base import Metadata, Model
from model_server.settings import Settings
from model_server.storage.fetching import Fetched, fetch
from model_server.telemetry import Telemetry

_log = structlog.get_logger()

_HANG_SECONDS = 1.0
"""A prediction that runs this much longer than any request may is of no use to anybody: its process is ended."""


@dataclass(frozen=True)
class Started:
    """A warm model: what it says about itself, what it was made of, and what runs its predictions."""

    metadata: Metadata
    fetched: Fetched
    """Its files, to be kept as long as it is served: workers that are lost load them again."""
    executor: Executor


async def start(settings: Settings, model_dir: Path, telemetry: Telemetry) -> Started:
    """The model, warm. LoadFailure says why there is none."""
    with _timed("fetch", telemetry):
        fetched, kind = await on_a_thread(lambda: _fetched(settings, model_dir))
    _log.info("model fetched", uri=settings.model.uri, sha256=fetched.digest)
    isolation = settings.isolation or ("thread" if kind == "onnx" else "process")
    if isolation == "process":
        metadata, executor = await _in_processes(settings, fetched.path, telemetry)
    else:
        metadata, executor = await _in_threads(settings, fetched.path, telemetry)
    try:
        fetched.require_unchanged()
    except LoadFailure:
        executor.stop()
        raise
    _log.info("model loaded", platform=metadata.platform, isolation=isolation)
    return Started(metadata, fetched, executor)


def _fetched(settings: Settings, model_dir: Path) -> tuple[Fetched, detect.Kind]:
    fetched = fetch(first_digest.held(settings.model), settings.storage, model_dir)
    return fetched, detect.detect(fetched.path)


async def _in_threads(settings: Settings, path: Path, telemetry: Telemetry) -> tuple[Metadata, Executor]:
    model = await loaded(settings, path, telemetry)
    executor = ThreadExecutor(model.predict, settings.concurrency)
    return model.metadata, QuickExecutor(model.predict, executor) if model.computes_only else executor


async def loaded(settings: Settings, path: Path, telemetry: Telemetry) -> Model:
    """The model at `path` in this process, warm. LoadFailure."""
    model, max_bytes = settings.model, settings.storage.max_bytes
    threads = _threads(settings)

    def load() -> Model:
        with _timed("load", telemetry):
            made = loading.load(path, model.format, model.entrypoint, threads, max_bytes, device=settings.device)
        with _timed("warmup", telemetry):
            outcome = loading.warm_up(made)
        _log.info("model is warm", threads=threads, warm_up=outcome)
        return made

    return await on_a_thread(load)


async def _in_processes(settings: Settings, path: Path, telemetry: Telemetry) -> tuple[Metadata, Executor]:
    from model_server.workers.pool import WorkerPool  # noqa: PLC0415 - most servers need none
    from model_server.workers.supervisor import ModelFiles  # noqa: PLC0415
    from model_server.workers.worker import Recycling  # noqa: PLC0415

    model = settings.model
    recycling = Recycling(settings.worker_max_requests, settings.worker_max_rss_megabytes * 2**20)
    limit = settings.timeout_milliseconds / 1000 + _HANG_SECONDS
    pool = WorkerPool(settings.concurrency, limit, telemetry.worker_restarts.inc, recycling)
    files = ModelFiles(
        path, model.format, model.entrypoint, _threads(settings), settings.storage.max_bytes, settings.device
    )
    try:
        with _timed("load", telemetry):
            return await pool.start(files), pool
    except BaseException:
        pool.stop()
        raise


def _threads(settings: Settings) -> int:
    return cpus.threads_per_prediction(settings.concurrency, cpus.available())


@contextmanager
def _timed(phase: str, telemetry: Telemetry) -> Iterator[None]:
    started = time.perf_counter()
    yield
    telemetry.cold_start.labels(phase).set(time.perf_counter() - started)
