"""The server's settings: the one reader of the environment, checked before anything starts.

Command-line options are another spelling of the same variables (see __main__), so both are checked alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast, get_args

from model_server.errors import LoadFailure, Reason

Format = Literal["auto", "onnx", "skops", "python"]
Device = Literal["cpu", "cuda"]
Isolation = Literal["thread", "process"]
PREFIX: Final = "INFLIGHT_"

SHA256 = re.compile(r"[0-9a-f]{64}")
_ENTRYPOINT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_MODEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")
_CACHE_URL = re.compile(r"(valkeys?|rediss?)://[^\s/?#]+(/\d{1,9})?")
_IDENTITIES = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT_KEY", "GCE_METADATA_HOST"),
    "az": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_FEDERATED_TOKEN_FILE"),
}
"""Scheme → the variables with which clouds (or people) give a process an identity; obstore reads them."""


@dataclass(frozen=True)
class ModelSettings:
    """Which model to serve and where it comes from."""

    name: str
    """The name that clients use in the URL."""
    uri: str
    """https:// s3:// gs:// az:// pvc:// image://, http:// with sha256; with `local_files` also file:// and paths."""
    sha256: str = ""
    """Lower-case hex digest that the model must have; empty: any."""
    digest_file: Path | None = None
    """Without a sha256: a file that may hold the one that this revision's first pod had, now or later."""
    format: Format = "auto"
    """auto decides by content, and never runs Python unless an entrypoint is given."""
    entrypoint: str = ""
    """"pkg.mod:Class" of a Python model; empty: the only class with a predict method."""
    local_files: bool = False
    """Files of this machine may be served and loopback addresses fetched from (the laptop's command line only)."""


@dataclass(frozen=True)
class StorageSettings:
    """How object stores are reached and how much may be fetched."""

    endpoint: str = ""
    """URL of the object store; empty: the cloud's own, by the URI's scheme."""
    region: str = ""
    """Of S3; empty: us-east-1."""
    secret_dir: Path | None = None
    """Directory with the files of a Secret; see storage.stores for their names."""
    identities: frozenset[str] = frozenset()
    """Schemes for which this process has an identity; for others, without secret_dir, requests are unsigned."""
    claim_dir: Path | None = None
    """Where the claim of a pvc:// URI is mounted; None: nowhere."""
    max_bytes: int = 10 * 1024**3
    """Bytes that one model may have, all files together."""
    timeout_seconds: float = 1800
    """Seconds that fetching may take, retries included."""
    connections: int = 8
    """Connections that one model is fetched over at once."""
    cache_dir: Path | None = None
    """A directory that the pods of a node share, for models whose sha256 is given; None: each fetches for itself."""
    cache_max_bytes: int = 20 * 1024**3
    """Bytes of models that may stay there unused."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides how this process serves."""

    model: ModelSettings
    storage: StorageSettings
    model_dir: Path | None
    """Where fetched models lie, and where an image:// model was unpacked; None: a temporary directory."""
    concurrency: int = 1
    """Predictions that run at once."""
    max_queue: int = 8
    """Requests that wait; one more is refused with 429."""
    isolation: Isolation | None = None
    """Where predictions run: on threads of this process, or in worker processes; None: by the model's format."""
    worker_max_requests: int = 0
    """Predictions after which a worker process makes way for a fresh one; 0: never."""
    worker_max_rss_megabytes: int = 0
    """Resident MiB, what it shares included, over which a worker process makes way for a fresh one; 0: never."""
    device: Device = "cpu"
    """Where ONNX models compute; cuda: on the GPU if there is one, else on the CPU with a warning in the log."""
    batch_max_rows: int = 1
    """Rows of several requests that one prediction may take; 1: no batching."""
    batch_max_delay_milliseconds: int = 0
    """How long a free slot waits for more rows; 0: what waits is run at once, and gathers while all slots are busy."""
    cache_max_megabytes: int = 0
    """MiB of answers that are kept for equal requests; 0: none are, and equal requests are computed each for itself."""
    cache_ttl_seconds: int = 300
    """How long an answer is kept."""
    cache_url: str = ""
    """valkey:// or redis:// (valkeys://, rediss:// with TLS) of a server where replicas share answers; empty: none."""
    front_busy_percent: int = 75
    """A server that computes for this share of a core, on HTTP and a quick model, serves connections from one more
    process, up to `concurrency` and the CPUs; 0: never."""
    timeout_milliseconds: int = 10_000
    """Milliseconds from a request's arrival to its answer; a client may only lower it."""
    max_body_bytes: int = 32 * 1024**2
    """Bytes of one request body."""
    drain_delay_seconds: float = 5
    """Seconds to keep serving after SIGTERM, so that this endpoint's removal reaches every router first."""
    host: str = ""
    """Address to listen on; empty: all of them, IPv6 and IPv4."""
    port: int = 8080
    """Port of the prediction API; 0 picks a free one."""
    metrics_port: int = 9090
    """Port of /metrics."""
    grpc_port: int | None = None
    """Port of the prediction API over gRPC; 0: none; None: 8081 if grpcio is installed and the port is free."""
    variant: str = ""
    """Name of the variant this pod belongs to, for logs."""
    revision: str = ""
    """Revision of that variant; what clients may name as the model's version."""
    termination_log: Path | None = None
    """Where the reason of a failed start is left for whoever watches the pod."""
    log_level: str = "info"
    """debug (every request) | info | warning | error."""


def read(environ: Mapping[str, str], *, local_files: bool = False) -> Settings:
    """Settings from INFLIGHT_* variables. LoadFailure(InvalidSettings) names the variable that is wrong.

    `local_files` is no variable: a pod's environment must not be able to open the pod's own files to a model URI.
    """
    env = _Reader(environ)
    secret_dir, claim_dir = env.text("STORAGE_SECRET_DIR"), env.text("CLAIM_DIR")
    model_dir, cache_dir = env.text("MODEL_DIR"), env.text("CACHE_DIR")
    termination_log = env.text("TERMINATION_LOG")
    level = env.text("LOG_LEVEL", "info").lower()
    if level not in ("debug", "info", "warning", "error"):
        raise env.invalid("LOG_LEVEL", level, "must be debug, info, warning or error")
    cache_max_megabytes = env.integer("CACHE_MAX_MEGABYTES", Settings.cache_max_megabytes, 0, 65_536)
    return Settings(
        model=_model(env, local_files),
        storage=StorageSettings(
            endpoint=env.text("STORAGE_ENDPOINT"),
            region=env.text("STORAGE_REGION"),
            secret_dir=Path(secret_dir) if secret_dir else None,
            identities=_identities(env, environ),
            claim_dir=Path(claim_dir) if claim_dir else None,
            max_bytes=env.integer("MAX_MODEL_BYTES", StorageSettings.max_bytes, 1, 2**50),
            cache_dir=Path(cache_dir) if cache_dir else None,
            cache_max_bytes=env.integer("CACHE_DIR_MAX_BYTES", StorageSettings.cache_max_bytes, 0, 2**50),
            connections=env.integer("FETCH_CONNECTIONS", StorageSettings.connections, 1, 64),
            timeout_seconds=env.integer("FETCH_TIMEOUT_SECONDS", int(StorageSettings.timeout_seconds), 1, 86_400),
        ),
        model_dir=Path(model_dir) if model_dir else None,
        concurrency=env.integer("CONCURRENCY", Settings.concurrency, 1, 64),
        max_queue=env.integer("MAX_QUEUE", Settings.max_queue, 0, 1000),
        isolation=_isolation(env),
        worker_max_requests=env.integer("WORKER_MAX_REQUESTS", 0, 0, 10**9),
        worker_max_rss_megabytes=env.integer("WORKER_MAX_RSS_MEGABYTES", 0, 0, 2**24),
        device=_device(env),
        batch_max_rows=env.integer("BATCH_MAX_ROWS", Settings.batch_max_rows, 1, 100_000),
        batch_max_delay_milliseconds=env.integer("BATCH_MAX_DELAY_MILLISECONDS", 0, 0, 10_000),
        cache_max_megabytes=cache_max_megabytes,
        cache_ttl_seconds=env.integer("CACHE_TTL_SECONDS", Settings.cache_ttl_seconds, 1, 86_400),
        cache_url=_cache_url(env, cache_max_megabytes),
        front_busy_percent=env.integer("FRONT_BUSY_PERCENT", Settings.front_busy_percent, 0, 100),
        timeout_milliseconds=env.integer("TIMEOUT_MILLISECONDS", Settings.timeout_milliseconds, 1, 600_000),
        max_body_bytes=env.integer("MAX_BODY_BYTES", Settings.max_body_bytes, 1, 2**34),
        drain_delay_seconds=env.integer("DRAIN_DELAY_SECONDS", int(Settings.drain_delay_seconds), 0, 3600),
        host=env.text("HOST"),
        port=env.integer("PORT", Settings.port, 0, 65_535),
        metrics_port=env.integer("METRICS_PORT", Settings.metrics_port, 0, 65_535),
        grpc_port=env.integer("GRPC_PORT", 0, 0, 65_535) if env.text("GRPC_PORT") else None,
        variant=env.text("VARIANT"),
        revision=env.text("REVISION"),
        termination_log=Path(termination_log) if termination_log else None,
        log_level=level,
    )


def _identities(env: _Reader, environ: Mapping[str, str]) -> frozenset[str]:
    found = {scheme for scheme, names in _IDENTITIES.items() if any(environ.get(name) for name in names)}
    match env.text("STORAGE_IDENTITY"):
        case "":
            return frozenset(found)
        case "metadata":  # Google's gives pods their service account's identity, and no variable says so
            return frozenset(found | {"gs"})
        case other:
            raise env.invalid("STORAGE_IDENTITY", other, "must be metadata, or not set")


def _isolation(env: _Reader) -> Isolation | None:
    isolation = env.text("ISOLATION")
    if isolation and isolation not in get_args(Isolation):
        raise env.invalid("ISOLATION", isolation, f"must be one of {', '.join(get_args(Isolation))}")
    return cast(Isolation, isolation) if isolation else None


def _device(env: _Reader) -> Device:
    device = env.text("DEVICE", Settings.device)
    if device not in get_args(Device):
        raise env.invalid("DEVICE", device, f"must be one of {', '.join(get_args(Device))}")
    return cast(Device, device)


def _model(env: _Reader, local_files: bool) -> ModelSettings:
    name, uri = env.text("MODEL_NAME"), env.text("MODEL_URI")
    if not uri:
        raise LoadFailure(
            Reason.INVALID_SETTINGS, f"no model to serve: give --model NAME=URI or set {PREFIX}MODEL_NAME and _URI"
        )
    if not _MODEL_NAME.fullmatch(name):
        raise env.invalid("MODEL_NAME", name, "must be letters, digits, '.', '_' or '-', as it is part of the URL")
    sha256 = env.text("MODEL_SHA256").lower()
    if sha256 and not SHA256.fullmatch(sha256):
        raise env.invalid("MODEL_SHA256", sha256, "must be 64 hexadecimal digits")
    model_format = env.text("MODEL_FORMAT", "auto")
    if model_format not in get_args(Format):
        raise env.invalid("MODEL_FORMAT", model_format, f"must be one of {', '.join(get_args(Format))}")
    entrypoint = env.text("MODEL_ENTRYPOINT")
    if entrypoint and not _ENTRYPOINT.fullmatch(entrypoint):
        raise env.invalid("MODEL_ENTRYPOINT", entrypoint, "must look like pkg.mod:Class")
    digest_file = env.text("MODEL_DIGEST_FILE")
    return ModelSettings(
        name=name,
        uri=uri,
        sha256=sha256,
        digest_file=Path(digest_file) if digest_file else None,
        format=cast(Format, model_format),
        entrypoint=entrypoint,
        local_files=local_files,
    )


def _cache_url(env: _Reader, megabytes: int) -> str:
    url = env.text("CACHE_URL")
    if url and not _CACHE_URL.fullmatch(url):  # it may hold a password: not shown
        raise env.invalid("CACHE_URL", "", "must look like valkey://[user:password@]host[:port][/database]")
    if url and not megabytes:
        raise env.invalid("CACHE_URL", "", "needs INFLIGHT_CACHE_MAX_MEGABYTES above 0: answers are kept here as well")
    return url


class _Reader:
    """INFLIGHT_* variables by name, with errors that name them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str, default: str = "") -> str:
        return self._environ.get(PREFIX + name) or default

    def integer(self, name: str, default: int, lowest: int, highest: int) -> int:
        raw = self.text(name, str(default))
        if not re.fullmatch(r"\d{1,18}", raw) or not lowest <= int(raw) <= highest:
            raise self.invalid(name, raw, f"must be a whole number from {lowest} to {highest}")
        return int(raw)

    def invalid(self, name: str, value: str, want: str) -> LoadFailure:
        shown = f", not {value[:200]!r}" if value else ""
        return LoadFailure(Reason.INVALID_SETTINGS, f"{PREFIX}{name} {want}{shown}")
