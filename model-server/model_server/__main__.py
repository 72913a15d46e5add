"""The command line: `model-server serve` and `model-server loadtest`.

The options of serve are another spelling of the INFLIGHT_* variables.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import orjson

from model_server import cpus, settings
from model_server.errors import LoadFailure

_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_OPTIONS: Final[tuple[tuple[str, str, str], ...]] = (
    ("--sha256", "MODEL_SHA256", "digest that the model must have"),
    ("--format", "MODEL_FORMAT", "auto | onnx | skops | python"),
    ("--entrypoint", "MODEL_ENTRYPOINT", '"pkg.mod:Class" of a Python model'),
    ("--storage-endpoint", "STORAGE_ENDPOINT", "URL of an S3-compatible store"),
    ("--model-dir", "MODEL_DIR", "where fetched models are kept (default: a temporary directory)"),
    ("--host", "HOST", "address to listen on (with --model: 127.0.0.1)"),
    ("--port", "PORT", "port of the prediction API (8080)"),
    ("--metrics-port", "METRICS_PORT", "port of /metrics (9090)"),
    ("--grpc-port", "GRPC_PORT", "port of gRPC (8081 if it is installed and the port is free; 0: none)"),
    ("--concurrency", "CONCURRENCY", "predictions at once (1)"),
    ("--max-queue", "MAX_QUEUE", "requests that wait (8)"),
    ("--isolation", "ISOLATION", "thread | process (default: process for Python and scikit-learn models)"),
    ("--batch-max-rows", "BATCH_MAX_ROWS", "rows of several requests in one prediction (1: no batching)"),
    ("--batch-max-delay-ms", "BATCH_MAX_DELAY_MILLISECONDS", "milliseconds that a free slot waits for more rows (0)"),
    ("--cache-max-mb", "CACHE_MAX_MEGABYTES", "MiB of answers kept for equal requests (0: none)"),
    ("--cache-ttl", "CACHE_TTL_SECONDS", "seconds that an answer is kept (300)"),
    ("--cache-url", "CACHE_URL", "valkey:// or redis:// server where replicas share answers"),
    ("--timeout-ms", "TIMEOUT_MILLISECONDS", "milliseconds that a request may take (10000)"),
    ("--drain-delay", "DRAIN_DELAY_SECONDS", "seconds to keep serving after SIGTERM (5)"),
    ("--log-level", "LOG_LEVEL", "debug | info | warning | error"),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits 0 after a stop that was asked for, 1 with the reason when it can't serve."""
    born = time.monotonic()
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["loadtest"]:
        from model_server.loadtest import command  # noqa: PLC0415 - serving never needs it

        sys.exit(command.main(given[1:]))
    # The first process of a container ignores SIGTERM unless it asks for it; the imports below take a moment.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    options = _parser().parse_args(given)
    environ = {**os.environ, **_given(options)}
    try:
        # The requested model may be a file here only when it was named on the command line itself.
        read = settings.read(environ, local_files=options.model is not None)
        _serve(read, environ, born)
    except LoadFailure as failure:
        _leave_reason(failure, environ)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="model-server", description="Serve one model over Open Inference Protocol V2."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("loadtest", help="ask a server from many clients at once; draws a chart")
    serve = commands.add_parser("serve", help="serve a model until a signal ends it")
    serve.add_argument(
        "--model", metavar="NAME=URI", type=_name_and_uri, help="the model (without it: INFLIGHT_MODEL_NAME and _URI)"
    )
    for option, variable, text in _OPTIONS:
        serve.add_argument(option, dest=variable, help=f"{text} [{settings.PREFIX}{variable}]")
    return parser


def _name_and_uri(text: str) -> tuple[str, str]:
    name, separator, uri = text.partition("=")
    if not (name and separator and uri):
        raise argparse.ArgumentTypeError("must be NAME=URI")
    return name, uri


def _given(options: argparse.Namespace) -> Mapping[str, str]:
    """What the command line says, as the variables it stands for."""
    given = {variable: getattr(options, variable) for _, variable, _ in _OPTIONS}
    if options.model is not None:
        given["MODEL_NAME"], given["MODEL_URI"] = options.model
        if given["HOST"] is None:
            given["HOST"] = os.environ.get(f"{settings.PREFIX}HOST") or "127.0.0.1"
    return {settings.PREFIX + variable: value for variable, value in given.items() if value is not None}


def _serve(read: settings.Settings, environ: Mapping[str, str], born: float) -> None:
    threads = str(cpus.threads_per_prediction(read.concurrency, cpus.available()))
    for variable in _THREAD_VARIABLES:  # before numpy is imported: its BLAS looks only then
        os.environ.setdefault(variable, threads)
    from model_server import app, logs  # noqa: PLC0415

    logs.configure(read.log_level, model=read.model.name, variant=read.variant, revision=read.revision)
    app.run(read, environ, born)


def _leave_reason(failure: LoadFailure, environ: Mapping[str, str]) -> None:
    """One JSON line on standard error and, where asked for, in the termination log (Kubernetes reads 4096 bytes)."""
    line = orjson.dumps({"reason": failure.reason.value, "message": failure.message[:1500]}) + b"\n"
    sys.stderr.buffer.write(line)
    log = environ.get(f"{settings.PREFIX}TERMINATION_LOG")
    if log:
        with contextlib.suppress(OSError):
            Path(log).write_bytes(line)


if __name__ == "__main__":
    main()
