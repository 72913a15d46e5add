"""What the cache of answers costs a request: its key, a hit, a miss more than no cache, a question to the shared level.

python -m benchmarks.bench_cache [--redis]: best of many rounds, so that a busy machine matters little; the shared
level's times are those of a redis-server started on loopback, medians and 99th percentiles.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import uvloop

from model_server.cache.caching import Caching
from model_server.cache.keys import Keys
from model_server.cache.shared import Found, Shared
from model_server.cache.store import own
from model_server.dispatcher import Dispatcher
from model_server.executor import Done, Outcome
from model_server.instruments import Counter
from model_server.models.tensors import Tensors
from model_server.queues import Priority
from model_server.telemetry import Telemetry

_SIZES: Final = (256, 4096, 65_536, 1_048_576, 3_145_728)
_OUTPUTS: Final = {"y": np.zeros((1, 10), np.float32)}
_REDIS_PORT: Final = 16_399


class _NoModel:
    """Answers at once."""

    slots = 1

    def submit(self, _inputs: Tensors, done: Done) -> None:
        done(Outcome(_OUTPUTS, None, 1e-6))

    def stop(self) -> None:
        """Nothing to stop."""


def _inputs(size: int, value: float = 1.0) -> Tensors:
    return {"x": np.full((1, size // 4), value, np.float32)}


def _best(work: Callable[[], object], each: int, rounds: int = 200) -> float:
    """Microseconds a call."""
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(each):
            work()
        best = min(best, (time.perf_counter() - started) / each)
    return 1e6 * best


def _keys() -> None:
    keys = Keys("ab" * 32, "digits", "onnx", "", "r1")
    for size in _SIZES:
        microseconds = _best(partial(keys.key, _inputs(size)), max(1, 10**5 // size))
        print(f"key of {size:>9,} bytes of input      {microseconds:9.1f} µs")
    texts = {"x": np.array([b"forty bytes of text in every one of these"] * 100, object)}
    print(f"key of 100 texts of 40 bytes        {_best(partial(keys.key, texts), 50):9.1f} µs")


async def _entering() -> None:
    def answered(outputs: Tensors | None, _error: BaseException | None) -> None:
        assert outputs is not None

    def enter(queue: Dispatcher | Caching, inputs: Tensors) -> None:
        queue.enter(inputs, deadline, Priority.NORMAL, answered)

    def enter_another(queue: Dispatcher | Caching) -> None:
        nonlocal number
        number += 1
        enter(queue, _inputs(4096, number))

    number, deadline, telemetry = 0.0, asyncio.get_running_loop().time() + 3600, Telemetry()
    dispatcher = Dispatcher(_NoModel(), 8, telemetry)
    caching = Caching(dispatcher, Keys("ab" * 32), max_bytes=2**20, ttl=300, telemetry=telemetry)
    enter(caching, _inputs(4096))
    hit = _best(partial(enter, caching, _inputs(4096)), 50)
    assert caching._counts["hit"].value == 50 * 200
    plain, miss = _best(partial(enter_another, dispatcher), 50), _best(partial(enter_another, caching), 50)
    assert caching._counts["miss"].value == 50 * 200 + 1
    print(f"a hit, 4 KiB of input               {hit:9.1f} µs")
    print(f"a miss, 4 KiB, beside no cache      {miss - plain:9.1f} µs more")


async def _shared() -> None:
    errors = Counter()
    shared = Shared(f"redis://127.0.0.1:{_REDIS_PORT}", "inflight:bench:", 60, errors, patience=1)
    kept = own(_OUTPUTS)
    assert kept is not None
    await asyncio.sleep(0.5)
    shared.put(b"k" * 32, kept)
    await asyncio.sleep(0.5)
    seconds, cpu = [], time.process_time()
    for _ in range(2000):
        answer: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        started = time.perf_counter()
        shared.look_up(b"k" * 32, answer.set_result)
        assert await answer is not None
        seconds.append(1e6 * (time.perf_counter() - started))
    cpu = 1e6 * (time.process_time() - cpu) / len(seconds)
    await shared.close()
    print(f"found in the shared level, p50      {statistics.median(seconds):9.1f} µs")
    print(f"                           p99      {statistics.quantiles(seconds, n=100)[98]:9.1f} µs")
    print(f"                           CPU      {cpu:9.1f} µs; {errors.value} errors")


async def _main() -> None:
    _keys()
    await _entering()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", action="store_true", help="measure the shared level too")
    options = parser.parse_args()
    uvloop.run(_main())
    if options.redis:
        command = ["redis-server", "--port", str(_REDIS_PORT), "--bind", "127.0.0.1", "--save", ""]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            time.sleep(1)
            try:
                uvloop.run(_shared())
            finally:
                server.terminate()
