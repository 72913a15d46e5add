"""What worker processes cost: memory of a large model, a hop there and back, and the time until a lost one is back.

python -m benchmarks.bench_workers: prints a table. Nothing else should run meanwhile; `--gib` and `--workers` choose
the model's size and how many share it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from model_server.executor import Outcome, ThreadExecutor
from model_server.workers.pool import WorkerPool
from model_server.workers.supervisor import ModelFiles
from model_server.workers.worker import Recycling

_MODEL = """
import os
import numpy as np

class Model:
    def load(self, path):
        self.weights = np.full(int(os.environ.get("BENCH_BYTES", "0")) // 8, 1.5)

    def predict(self, inputs):
        if "exit" in inputs:
            os._exit(1)
        return {"y": inputs["x"], "sum": np.array([self.weights[:: 4096].sum()])}
"""


async def _ask(executor: Any, inputs: dict[str, Any]) -> Outcome:
    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    executor.submit(inputs, ended.set_result)
    return await ended


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _below() -> list[int]:
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


async def _started(model: Path, workers: int) -> tuple[WorkerPool, float]:
    pool = WorkerPool(workers, 30, lambda: None, Recycling())
    started = time.perf_counter()
    await pool.start(ModelFiles(model, "python", "", 1, 2**40, "cpu"))
    return pool, time.perf_counter() - started


async def _memory(model: Path, gib: float, workers: int) -> None:
    os.environ["BENCH_BYTES"] = str(int(gib * 2**30))
    pool, seconds = await _started(model, workers)
    for _ in range(4):
        await asyncio.gather(*(_ask(pool, {"x": np.ones(250, np.float32)}) for _ in range(workers)))
    total = sum(map(_pss, _below()))
    print(f"a model of {gib} GiB with {workers} workers: PSS of the template and the workers {total / 2**30:.3f} GiB")
    print(f"the front's own: {_pss(os.getpid()) / 2**20:.0f} MiB; start to warm: {seconds:.2f} s")
    await _replaced(pool, "with that model")
    pool.stop()
    del os.environ["BENCH_BYTES"]


async def _replaced(pool: WorkerPool, what: str) -> None:
    """From the answer that a worker was lost to the next one's first answer."""
    times = []
    for _ in range(15):
        await asyncio.gather(*(_ask(pool, {"exit": np.ones(1)}) for _ in range(pool.slots)))
        started = time.perf_counter()
        assert (await _ask(pool, {"x": np.ones(250, np.float32)})).error is None
        times.append(1e3 * (time.perf_counter() - started))
    print(
        f"all workers lost to the next answer, {what}: median {statistics.median(times):.1f} ms, most {max(times):.1f}"
    )


async def _hops(executor: Any, name: str) -> None:
    for size, count, times in (("1 KB", 250, 2000), ("100 KB", 25_000, 500), ("3 MB", 750_000, 50)):
        inputs = {"x": np.ones(count, np.float32)}
        took = []
        for _ in range(times):
            started = time.perf_counter()
            outcome = await _ask(executor, inputs)
            took.append(1e6 * (time.perf_counter() - started))
            assert outcome.outputs is not None
        took.sort()
        print(f"{name}, {size}: submit to done median {took[times // 2]:,.0f} µs, p99 {took[times * 99 // 100]:,.0f}")


async def _main(gib: float, workers: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model.py"
        model.write_text(_MODEL)
        pool, seconds = await _started(model, 1)
        print(f"one worker: start to warm {seconds:.2f} s")
        await _hops(pool, "worker")
        await _replaced(pool, "small model")
        pool.stop()
        threads = ThreadExecutor(lambda inputs: {"y": inputs["x"].copy()}, 1)
        await _hops(threads, "thread")
        threads.stop()
        await _memory(model, gib, workers)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(options.gib, options.workers))


if __name__ == "__main__":
    main()
