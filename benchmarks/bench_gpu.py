"""ONNX on a GPU beside the CPU, through the real server: `python -m benchmarks.bench_gpu [--layers 16] [--seconds 3]`.

Needs a GPU, and onnxruntime-gpu in this Python. A model of `layers` matrices of 4096 x 4096 FP32 (16: 1 GiB) is served
on the CPU, on the GPU, there with four predictions at once and with batches of 32 rows, and in a worker process. Each
is asked the same 20 rows (the CPU's answers are the right ones), then by 1, 8 and 32 clients that send raw bytes, then
stopped with SIGTERM while 8 clients ask. Prints a table and what was checked; `--json FILE` instead of
benchmarks/results/gpu.json. Exit status 1: a check failed, or there is no GPU, which `--allow-cpu` lets pass to try the
rest. Takes 2 minutes, and gives up after LIMIT_SECONDS.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import uvloop
from onnx import TensorProto, helper, numpy_helper

from benchmarks.server import clients, wire
from benchmarks.server.kept import RESULTS, machine, now
from benchmarks.server.processes import Tree, free_port
from benchmarks.server.samples import quantile, shown

ROOT: Final = Path(__file__).parents[1]
WIDTH: Final = 4096
ROWS: Final = 20
CLIENTS: Final = (1, 8, 32)
TOLERANCE: Final = 0.01
"""Of the largest number of an answer: onnxruntime's matrix products on a GPU are TF32 unless told otherwise, which are
right to 3 digits each. Emulated in numpy, 16 layers of it make a difference of 0.0012."""
DRAIN_SECONDS: Final = 2
ENDING_SECONDS: Final = 3.0
"""After the drain delay, for what is in flight and for CUDA's own end."""
START_SECONDS: Final = 60.0
LIMIT_SECONDS: Final = 180.0
_ON_GPU: Final = "predictions run on the GPU"
_SAYS: Final = (
    _ON_GPU,
    "a GPU was asked for, but predictions run on the CPU",
    "the model has threads once it is loaded: every worker loads it for itself",
)

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Way:
    """How the model is served."""

    name: str
    device: str
    options: tuple[str, ...] = ()
    gpu: bool = False
    """Whether predictions must run there."""
    clients: tuple[int, ...] = CLIENTS


WAYS: Final = (
    Way("CPU", "cpu"),
    Way("GPU", "cuda", gpu=True),
    Way("GPU, concurrency 4", "cuda", ("--concurrency", "4"), gpu=True),
    Way("GPU, maxRows 32", "cuda", ("--batch-max-rows", "32"), gpu=True),
    Way("isolation: process", "cuda", ("--isolation", "process"), gpu=True, clients=(1,)),
)


class FellBackError(Exception):
    """The server was to use the GPU and doesn't; the text says why."""


@dataclass
class Found:
    """What one way of serving came to."""

    says: str = ""
    """The server's log, of the device."""
    ready_seconds: float = 0
    difference: float = 0
    """The largest from the CPU's answers, in parts of their largest number; rows alone, and all in one request."""
    loads: dict[int, dict[str, float]] = field(default_factory=dict)
    """By the number of clients."""
    in_flight: float = 0
    rss_mib: float = 0
    gpu_mib: str = ""
    exit_status: int = -1
    exit_seconds: float = 0
    failed_by_stopping: int = 0


class Checks:
    """What must be so."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.held: list[str] = []

    def that(self, what: str, holds: bool) -> None:
        """Note it."""
        (self.held if holds else self.failed).append(what)


def write_model(file: Path, layers: int) -> None:
    """x [n, WIDTH] → layers of relu(x W + b), the last without relu → y [n, WIDTH]; the numbers stay near 1."""
    rng, nodes, constants, taken = np.random.default_rng(7), [], [], "x"
    for layer in range(layers):
        weights = rng.standard_normal((WIDTH, WIDTH), np.float32) * np.float32((2 / WIDTH) ** 0.5)
        bias = rng.standard_normal(WIDTH, np.float32) * np.float32(0.1)
        constants += [numpy_helper.from_array(weights, f"w{layer}"), numpy_helper.from_array(bias, f"b{layer}")]
        last = layer == layers - 1
        nodes.append(helper.make_node("Gemm", [taken, f"w{layer}", f"b{layer}"], ["y" if last else f"g{layer}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"g{layer}"], [f"r{layer}"]))
        taken = f"r{layer}"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in "xy")
    graph = helper.make_graph(nodes, "mlp", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(file))


# Asking --------------------------------------------------------------------------------------------------------------


def _message(x: Array) -> bytes:
    """A body that is the one input, and answers are raw then."""
    raw = {"content-type": "application/octet-stream", "inference-header-content-length": "0"}
    return wire.request("POST", "/v2/models/m/infer", x.tobytes(), raw)


def _tensor(answer: wire.Answer) -> Array:
    if answer.status != 200:
        raise RuntimeError(f"{answer.status}: {answer.body[:300]!r}")
    return np.frombuffer(answer.body[int(answer.headers["inference-header-content-length"]) :], np.float32)


async def _ask(port: int, message: bytes) -> wire.Answer:
    connection = wire.Connection()
    await connection.connect(port)
    try:
        return await connection.ask(message)
    finally:
        connection.abort()


async def _answers(port: int, x: Array) -> tuple[Array, Array]:
    """Of the rows one by one, and of all in one request."""
    alone = [_tensor(await _ask(port, _message(row))) for row in x.reshape(ROWS, 1, WIDTH)]
    return np.stack(alone), _tensor(await _ask(port, _message(x))).reshape(ROWS, WIDTH)


def _difference(got: Array, wanted: Array) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def _talk(port: int, x: Array, wanted: Array) -> clients.Talk:
    messages = [_message(row) for row in x.reshape(ROWS, 1, WIDTH)]

    def right(identity: int, answer: wire.Answer) -> bool:
        return _difference(_tensor(answer), wanted[identity % ROWS]) <= TOLERANCE

    return clients.Talk(port, lambda identity: messages[identity % ROWS], right, timeout_seconds=10)


def _values(load: clients.Load) -> dict[str, float]:
    took = [1000 * (tried.ended - tried.sent) for tried in load.tried if tried.end is clients.End.ANSWER]
    seconds = load.ended - load.started
    return {
        "p50_ms": round(quantile(took, 0.5), 3),
        "p99_ms": round(quantile(took, 0.99), 3),
        "requests_per_second": round(len(took) / seconds, 1),
        "refused": sum(tried.end is clients.End.REFUSAL for tried in load.tried),
        "failed": sum(tried.end not in (clients.End.ANSWER, clients.End.REFUSAL) for tried in load.tried),
        "generator_share": round(load.cpu_seconds / seconds, 2),
    }


# Serving -------------------------------------------------------------------------------------------------------------


def _start(way: Way, model: Path, directory: Path, port: int, metrics: int) -> Tree:
    ports = ["--port", str(port), "--metrics-port", str(metrics), "--grpc-port", "0"]
    bounds = ["--max-queue", "64", "--drain-delay", str(DRAIN_SECONDS)]
    command = [sys.executable, "-m", "model_server", "serve", "--model", f"m={model}", *ports, *bounds, *way.options]
    paths = os.pathsep.join([str(ROOT / "model-server"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "INFLIGHT_DEVICE": way.device}
    return Tree(command, environment, directory, directory / f"{way.name}.log")


async def _ready(tree: Tree, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and tree.running():
        try:
            if (await _ask(port, wire.request("GET", "/v2/health/ready"))).status == 200:
                return
        except OSError:
            pass
        await asyncio.sleep(0.05)
    raise RuntimeError(f"the server isn't ready; its output ends with: {tree.last_words()}")


def _said(tree: Tree) -> str:
    """What the log tells of the device."""
    lines = [json.loads(line) for line in tree.log.read_text().splitlines() if line.startswith("{")]
    told = [": ".join(filter(None, (line["event"], line.get("why")))) for line in lines if line.get("event") in _SAYS]
    return "; ".join(dict.fromkeys(told))


async def _in_flight(metrics: int) -> float:
    """Once it is 0, or after 5 s what it is then."""
    deadline = time.monotonic() + 5
    while True:
        lines = (await _ask(metrics, wire.request("GET", "/metrics"))).body.decode().splitlines()
        count = next(float(line.split()[1]) for line in lines if line.startswith("inflight_server_requests_in_flight "))
        if count == 0 or time.monotonic() > deadline:
            return count
        await asyncio.sleep(0.1)


async def _stopped(tree: Tree, talk: clients.Talk, found: Found) -> None:
    """SIGTERM while clients ask, who stop before the drain delay has passed."""
    asking = asyncio.create_task(clients.closed(talk, 8, 1.0, honour=True))
    await asyncio.sleep(0.5)
    os.kill(tree.pid, signal.SIGTERM)
    began = time.monotonic()
    found.failed_by_stopping = int(_values(await asking)["failed"])
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS + 4 * ENDING_SECONDS):
            how = await asyncio.to_thread(os.waitid, os.P_PID, tree.pid, os.WEXITED | os.WNOWAIT)
        if how is not None:
            found.exit_status = how.si_status if how.si_code == os.CLD_EXITED else -how.si_status
    found.exit_seconds = round(time.monotonic() - began, 2)


def _gpu(what: str) -> str:
    try:
        command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "none"


# All of it -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What all ways have in common."""

    model: Path
    directory: Path
    x: Array
    seconds: float
    allow_cpu: bool
    checks: Checks


async def measured(way: Way, run: Run, wanted: Array | None) -> tuple[Found, Array]:
    """One way, and its answers; `wanted` are the CPU's. FellBackError."""
    found, port, metrics, began = Found(), free_port(), free_port(), time.monotonic()
    with _start(way, run.model, run.directory, port, metrics) as tree:
        await _ready(tree, port)
        found.ready_seconds, found.says = round(time.monotonic() - began, 2), _said(tree)
        if way.gpu and not found.says.startswith(_ON_GPU) and not run.allow_cpu:
            raise FellBackError(found.says or "the log says nothing of a GPU")
        alone, together = await _answers(port, run.x)
        wanted = alone if wanted is None else wanted
        found.difference = max(_difference(alone, wanted), _difference(together, wanted))
        talk = _talk(port, run.x, wanted)
        for count in way.clients:
            await clients.closed(talk, count, 0.5, honour=True)  # batches and queues have learnt how long it takes
            found.loads[count] = _values(await clients.closed(talk, count, run.seconds, honour=True))
        found.in_flight = await _in_flight(metrics)
        found.rss_mib, found.gpu_mib = tree.weigh().rss, _gpu("memory.used")
        await _stopped(tree, talk, found)
    _check(way, found, run.checks)
    return found, alone


def _check(way: Way, found: Found, checks: Checks) -> None:
    if way.gpu:
        checks.that(f"{way.name}: on the GPU ({found.says})", found.says.startswith(_ON_GPU))
    else:
        checks.that(f"{way.name}: on the CPU ({found.says or 'nothing is said'})", _ON_GPU not in found.says)
    checks.that(f"{way.name}: off by {found.difference:.2g}, at most {TOLERANCE}", found.difference <= TOLERANCE)
    failed = sum(load["failed"] for load in found.loads.values())
    checks.that(f"{way.name}: {failed:.0f} requests failed", failed == 0)
    checks.that(f"{way.name}: {found.in_flight:.0f} in flight afterwards", found.in_flight == 0)
    in_time = found.exit_seconds <= DRAIN_SECONDS + ENDING_SECONDS
    stopped = f"{way.name}: SIGTERM, exit status {found.exit_status} after {found.exit_seconds} s"
    checks.that(stopped, found.exit_status == 0 and in_time)
    checks.that(f"{way.name}: {found.failed_by_stopping} requests failed meanwhile", found.failed_by_stopping == 0)


def table(results: dict[str, Found]) -> str:
    """Markdown."""
    loads = " | ".join(f"{count} clients /s" for count in CLIENTS)
    lines = [
        f"| | p50 ms | p99 ms | {loads} | off by | ready s | RSS MiB | GPU MiB |",
        "|" + "---|" * (7 + len(CLIENTS)),
    ]
    for name, found in results.items():
        lone = found.loads[CLIENTS[0]]
        rates = [found.loads[count]["requests_per_second"] if count in found.loads else math.nan for count in CLIENTS]
        cells = [lone["p50_ms"], lone["p99_ms"], *rates]
        cells += [found.difference, found.ready_seconds, found.rss_mib]
        lines.append(f"| {name} | {' | '.join(map(shown, cells))} | {found.gpu_mib} |")
    return "\n".join(lines)


async def main(options: argparse.Namespace) -> int:
    """Exit status."""
    checks, results, wanted = Checks(), dict[str, Found](), None
    x = np.random.default_rng(8).standard_normal((ROWS, WIDTH), np.float32)
    with tempfile.TemporaryDirectory(prefix="inflight-gpu-") as directory:
        run = Run(Path(directory) / "mlp.onnx", Path(directory), x, options.seconds, options.allow_cpu, checks)
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                write_model(run.model, options.layers)
                for way in WAYS:
                    found, answers = await measured(way, run, wanted)
                    results[way.name], wanted = found, answers if wanted is None else wanted
                    print(f"{way.name}: {asdict(found)}", file=sys.stderr, flush=True)
        except FellBackError as fell_back:
            checks.that(f"fell back: {fell_back}", False)
        except (TimeoutError, RuntimeError, OSError) as error:
            checks.that(f"not measured to the end: {type(error).__name__} {error}", False)
    content = {
        "when": now(),
        "gpu": _gpu("name"),
        "driver": _gpu("driver_version"),
        "machine": machine(),
        "onnxruntime": onnxruntime.__version__,
        "model": f"{options.layers} layers of {WIDTH} x {WIDTH} FP32, {options.layers * WIDTH**2 // 2**18} MiB",
        "tolerance": TOLERANCE,
        "seconds": options.seconds,
        "servers": {name: asdict(found) for name, found in results.items()},
        "held": checks.held,
        "failed": checks.failed,
    }
    options.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"{content['gpu']}, driver {content['driver']}, onnxruntime {content['onnxruntime']}; {content['model']}\n")
    print(table(results), "", *(f"failed: {what}" for what in checks.failed), f"held: {len(checks.held)}", sep="\n")
    return 1 if checks.failed and not options.allow_cpu else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3, help="of each load")
    parser.add_argument("--json", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--allow-cpu", action="store_true", help="go on without a GPU, and exit with 0")
    sys.exit(uvloop.run(main(parser.parse_args())))
