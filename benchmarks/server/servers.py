"""How each server is started for each work, and in which words it is asked. Starts nothing itself.

Every peer runs as its own documentation advises for two cores: two workers, one thread inside a prediction, and bounds
where it has them (chosen by hand for W2: as many as can be answered within half the clients' patience).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.server import dialects, venvs
from benchmarks.server.dialects import Dialect
from benchmarks.server.starting import HERE, MODELS, Server, Start, for_peers


def _bin(name: str, program: str) -> str:
    return str(venvs.directory(name) / "bin" / program)


def _app(name: str, file: str = "app.py") -> str:
    return str(HERE / "peers" / name / file)


OURS_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "W1": ("--concurrency", "2"),
    "W2": ("--concurrency", "2"),
    "W3": ("--concurrency", "2", "--batch-max-rows", "64", "--max-queue", "64"),
    "W4": ("--concurrency", "2"),
    "W5": (),
    "crash": ("--concurrency", "2", "--batch-max-rows", "32", "--max-queue", "64"),
}
"""All that is set by hand for ours: two predictions at once on two cores, and batches with room for all clients."""


def _ours(start: Start) -> list[str]:
    python_models = {"W2": MODELS / "chain.py", "W3": MODELS / "rows.py", "crash": MODELS / "fragile.py"}
    model = python_models.get(start.work, start.onnx)
    as_python = ["--format", "python", "--entrypoint", _entrypoint(model)] if model.suffix == ".py" else []
    ports = ["--port", str(start.port), "--metrics-port", str(start.others[0])]
    options = OURS_OPTIONS[start.work]
    return [_bin("ours", "model-server"), "serve", "--model", f"m={model}", *as_python, *ports, *options]


def _entrypoint(model: Path) -> str:
    return f"{model.stem}:{model.stem.capitalize()}"


def _uvicorn(processes: int) -> Callable[[Start], list[str]]:
    def command(start: Start) -> list[str]:
        workers = ["--workers", str(processes)] if processes > 1 else []
        where = ["--app-dir", str(HERE / "peers" / "plain"), "--port", str(start.port), "--no-access-log"]
        return [_bin("plain", "uvicorn"), "app:app", *where, *workers]

    return command


def _mlserver(start: Start) -> list[str]:
    return [_bin("mlserver", "mlserver"), "start", str(start.directory)]


def _mlserver_variables(start: Start) -> dict[str, str]:
    """With a tiny model its workers only cost: the documentation says how to do without (parallel_workers 0)."""
    inside = start.work in ("W1", "W5")
    settings = {
        "MLSERVER_DEBUG": "false",
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(start.port),
        "MLSERVER_GRPC_PORT": str(start.others[0]),
        "MLSERVER_METRICS_PORT": str(start.others[1]),
        "MLSERVER_PARALLEL_WORKERS": "0" if inside else "2",
        "MLSERVER_MODEL_NAME": "m",
        "MLSERVER_MODEL_IMPLEMENTATION": "app.Served",
    }
    batching = {"MLSERVER_MODEL_MAX_BATCH_SIZE": "64", "MLSERVER_MODEL_MAX_BATCH_TIME": "0.01"}
    paths = f"{for_peers(start)['PYTHONPATH']}{os.pathsep}{HERE / 'peers' / 'mlserver'}"
    return settings | (batching if start.work in ("W3", "crash") else {}) | {"PYTHONPATH": paths}


def _bentoml_variables(start: Start) -> dict[str, str]:
    return {
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(start.directory / "home"),
        "BENCH_BOUND": "20",
    }


def _bentoml(start: Start) -> list[str]:
    where = ["--working-dir", str(HERE / "peers" / "bentoml"), "--host", "127.0.0.1", "--port", str(start.port)]
    return [_bin("bentoml", "bentoml"), "serve", "app:Service", *where]


_ALL: Final = ("W1", "W2", "W3", "W4", "W5", "crash")
_ONE: Final = ("W1", "W2", "W3", "W4", "W5")
_TWO: Final = ("W1", "W2", "W4", "crash")


def _plain_talk(work: str) -> Dialect:
    return dialects.raw("/image") if work == "W4" else dialects.plain_json("/predict")


def _constant(start: Start) -> list[str]:
    where = ["--app-dir", str(HERE / "ceilings"), "--port", str(start.port), "--workers", "2"]
    best = ["--no-access-log", "--log-level", "warning", "--lifespan", "off", "--loop", "uvloop", "--http", "httptools"]
    return [_bin("ours", "uvicorn"), "constant:app", *where, *best]


def _protocol(start: Start) -> list[str]:
    return [str(venvs.python("ours")), str(HERE / "ceilings" / "protocol.py"), str(start.port), str(start.onnx)]


def _ceiling_talk(work: str) -> Dialect:
    return dialects.v2_binary("m") if work == "W4" else dialects.v2_json("m")


SERVERS: Final[Mapping[str, Server]] = {
    server.name: server
    for server in (
        Server(
            "ours",
            "inflight",
            "ours",
            _ALL,
            _ours,
            lambda work: dialects.v2_binary("m") if work == "W4" else dialects.v2_json("m"),
            kind="ours",
        ),
        Server(
            "mlserver",
            "MLServer",
            "mlserver",
            _ALL,
            _mlserver,
            lambda work: dialects.v2_base64("m") if work == "W4" else dialects.v2_json("m"),
            _mlserver_variables,
        ),
        Server(
            "litserve",
            "LitServe",
            "litserve",
            _ALL,
            lambda start: [str(venvs.python("litserve")), _app("litserve"), str(start.port)],
            lambda work: dialects.multipart("/predict") if work == "W4" else dialects.plain_json("/predict"),
            lambda start: {"BENCH_FAST_QUEUE": "0" if start.work == "W2" else "1"},
        ),
        Server(
            "bentoml",
            "BentoML",
            "bentoml",
            _ALL,
            _bentoml,
            lambda work: dialects.multipart("/image") if work == "W4" else dialects.plain_json("/infer"),
            _bentoml_variables,
        ),
        Server(
            "ray",
            "Ray Serve",
            "ray",
            _ALL,
            lambda start: [str(venvs.python("ray")), _app("ray"), str(start.port), str(start.directory.parent / "ray")],
            lambda work: dialects.raw("/predict") if work == "W4" else dialects.plain_json("/predict"),
            lambda _: {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "BENCH_BOUND": "8"},
        ),
        Server("plain", "plain FastAPI", "plain", _ONE, _uvicorn(1), _plain_talk, kind="naive"),
        Server("plain2", "plain FastAPI x2", "plain", _TWO, _uvicorn(2), _plain_talk, kind="naive"),
        Server("constant", "uvicorn, constant, x2", "ours", ("W1",), _constant, _ceiling_talk, kind="ceiling"),
        Server("protocol", "raw protocol, real work, x2", "ours", ("W1",), _protocol, _ceiling_talk, kind="ceiling"),
        Server("reading", "uvicorn, reads and drops, x2", "ours", ("W4",), _constant, _ceiling_talk, kind="ceiling"),
    )
}
