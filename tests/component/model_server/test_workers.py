"""Worker processes: predictions and errors come back from them, they are replaced, and nothing stays of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from model_server.errors import LoadFailure, Problem, Reason
from model_server.workers.pool import WorkerPool
from model_server.workers.worker import NICE, Recycling
from model_serving import until
from model_workers import FRONT, MODEL, Pool, alive, answered, children, descriptors, files, parent, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "model.py"
    file.write_text(MODEL)
    return file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(model: Path) -> AsyncIterator[Pool]:
    """A pool of two that tests share, whose workers they leave as they were."""
    async with running(model, slots=2) as pool:
        yield pool


async def test_predictions_run_at_once_in_processes_of_this_one(shared: Pool) -> None:
    pids = await shared.pids()
    assert len(pids) == 2
    assert {parent(pid) for pid in pids} == {os.getpid()}


async def test_workers_yield_the_machine_to_the_front_and_go_first_when_memory_runs_out(shared: Pool) -> None:
    told = answered(await shared.predict("nice"))
    assert told["nice"][0] == min(19, os.nice(0) + NICE)
    assert told["group"][0] == NICE, "of its session, where the scheduler looks at that first"
    assert told["oom"][0] >= 500


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(np.array(5.0), id="a number"),
        pytest.param(np.zeros((0, 4), np.float32), id="no rows"),
        pytest.param(np.arange(3 * 5, dtype=np.float16).reshape(3, 5), id="small"),
        pytest.param(np.arange(700_000, dtype=np.uint64).reshape(700, 1000), id="large"),
        pytest.param(np.ones(8_000_000), id="64 MB"),
        pytest.param(np.array([[True], [False]]), id="booleans"),
        pytest.param(np.arange(100_000).reshape(100, 1000)[::2, ::3], id="strided"),
        pytest.param(np.asfortranarray(np.arange(100_000).reshape(100, 1000)), id="column by column"),
        pytest.param(np.broadcast_to(np.float32(3), (400, 100)), id="broadcast"),
        pytest.param(np.array([[b"", "ä".encode()], [b"\x00\xff", b"x" * 100_000]], object), id="texts"),
    ],
)
async def test_tensors_come_back_as_they_went(shared: Pool, sent: Any) -> None:
    got = answered(await shared.predict(x=sent))["x"]
    assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
    assert np.array_equal(got, sent)
    assert got.flags.writeable


async def test_an_answer_is_not_changed_by_the_next_one(model: Path) -> None:
    async with running(model) as pool:
        first = answered(await pool.predict(x=np.zeros(100_000)))["x"]
        await pool.predict(x=np.ones(100_000))
        assert not first.any()


@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "large"])
async def test_a_model_may_keep_its_inputs_and_write_to_them(model: Path, size: int) -> None:
    async with running(model) as pool:
        await pool.predict("keep", x=np.zeros(size))
        assert np.array_equal(answered(await pool.predict("write", x=np.ones(size)))["x"], np.full(size, 2.0))
        assert not answered(await pool.predict("kept-first"))["x"].any()


@pytest.mark.parametrize(
    ("do", "kind", "text"),
    [
        pytest.param("refuse", Problem, "the model refused the input: that is no digit", id="it blames the input"),
        pytest.param("fail", Exception, "KeyError: 'secret'", id="it raises"),
        pytest.param("quit", Exception, "SystemExit: 1", id="it exits"),
        pytest.param("broken", Exception, "Broken: (no text)", id="it raises what can't be told"),
        pytest.param("surrogate", Problem, "refused the input", id="it raises what is no Unicode"),
        pytest.param("complex", Exception, "complex128", id="it answers what the protocol has no name for"),
        pytest.param("unicode", Exception, "surrogates not allowed", id="it answers what is no Unicode"),
    ],
)
async def test_an_error_is_told_and_the_worker_stays(shared: Pool, do: str, kind: type, text: str) -> None:
    before = await shared.pid()
    error = (await shared.predict(do)).error
    assert isinstance(error, kind)
    assert text in str(error)
    assert await shared.pid() == before


async def test_the_traceback_comes_for_the_log(shared: Pool) -> None:
    error = (await shared.predict("fail")).error
    assert "Traceback" in str(error)
    assert "in fail" in str(error)


async def test_time_is_what_the_prediction_took(shared: Pool) -> None:
    outcome = await shared.predict("nap")
    assert 0.5 <= outcome.seconds < 2


async def test_workers_draw_different_random_numbers(model: Path) -> None:
    async with running(model) as pool:
        drawn = set()
        for _ in range(2):
            drawn.add(float(answered(await pool.predict("random"))["y"][0]))
            await pool.predict("exit")
        assert len(drawn) == 2


@pytest.mark.parametrize(
    ("recycling", "do"),
    [
        pytest.param(Recycling(max_requests=3), "echo", id="requests"),
        pytest.param(Recycling(max_rss_bytes=120 * 2**20), "leak", id="memory"),
    ],
)
async def test_workers_make_way_for_fresh_ones_between_requests(model: Path, recycling: Recycling, do: str) -> None:
    async with running(model, recycling=recycling) as pool:
        pids = [int(answered(await pool.predict(do))["pid"][0]) for _ in range(12)]
        changes = sum(before != after for before, after in pairwise(pids))
        assert len(set(pids)) - 1 == changes >= 2
        assert pool.lost == 0


async def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import no_such_module\nclass Model:\n    def predict(self, x): return x\n")
    with pytest.raises(LoadFailure) as raised:
        async with running(tmp_path / "model.py"):
            pass
    assert raised.value.reason is Reason.LOAD_FAILED
    assert "no_such_module" in raised.value.message


@pytest.mark.parametrize(
    ("code", "how"),
    [
        pytest.param("os._exit(7)", "exit code 7", id="it exits"),
        pytest.param("ctypes.string_at(0)", "SIGSEGV", id="it crashes"),
    ],
)
async def test_a_model_that_ends_its_process_is_a_failure_to_load(tmp_path: Path, code: str, how: str) -> None:
    (tmp_path / "model.py").write_text(
        "import ctypes, os\nclass Model:\n    inputs = [{'name': 'x', 'datatype': 'FP32', 'shape': [1]}]\n"
        f"    def predict(self, inputs): {code}\n"
    )
    with pytest.raises(LoadFailure, match=how):
        async with running(tmp_path / "model.py"):
            pass


async def test_a_process_that_cannot_load_and_does_not_end_blocks_nobody(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n"
        "class Model:\n    def load(self, path): raise ValueError('no weights')\n    def predict(self, x): return x\n"
    )
    started = time.monotonic()
    with pytest.raises(LoadFailure, match="no weights"):
        async with running(tmp_path / "model.py"):
            pass
    assert time.monotonic() - started < 10


async def test_a_stop_while_the_model_loads_is_quick(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import time\ntime.sleep(600)\nclass Model:\n    def predict(self, x): pass\n")
    before = children(os.getpid())
    pool = WorkerPool(2, 30, lambda: None, Recycling())
    starting = asyncio.create_task(pool.start(files(tmp_path / "model.py")))
    await asyncio.sleep(0.3)
    started = time.monotonic()
    starting.cancel()
    pool.stop()
    assert time.monotonic() - started < 1
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert children(os.getpid()) == before


@pytest.mark.parametrize("threads", [1, 2])
async def test_threads_of_numpy_do_not_keep_a_model_from_being_shared(model: Path, threads: int) -> None:
    async with running(model, threads=threads) as pool:
        assert (await pool.predict()).error is None
        assert len(children(os.getpid())) >= 2


async def test_a_model_with_threads_is_loaded_by_every_worker(tmp_path: Path) -> None:
    threaded = "self.kept = []; import threading; threading.Thread(target=time.sleep, args=(600,)).start()"
    (tmp_path / "model.py").write_text(MODEL.replace("self.kept = []", threaded))
    before = children(os.getpid())
    async with running(tmp_path / "model.py", slots=2) as pool:
        assert children(os.getpid()) - before == await pool.pids(), "there is no template"
        assert isinstance((await pool.predict("exit")).error, Problem)
        await until(lambda: pool.pool.ready == 2, 20)
        assert len(await pool.pids()) == 2
    assert children(os.getpid()) == before


async def test_a_stop_leaves_no_process_and_no_descriptor(model: Path) -> None:
    before, opened = children(os.getpid()), descriptors()
    async with running(model, slots=3) as pool:
        await pool.pids()
        held = asyncio.create_task(pool.predict("spin"))
        await asyncio.sleep(0.1)
        started = time.monotonic()
    assert time.monotonic() - started < 1
    assert children(os.getpid()) == before
    assert descriptors() == opened
    held.cancel()


async def test_when_the_front_is_killed_nothing_stays(model: Path) -> None:
    front = subprocess.Popen(  # noqa: ASYNC220 - it has to be killed
        [sys.executable, "-c", FRONT, str(model), "echo", "spin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert front.stdout
    assert front.stdin
    while front.stdout.readline() != b"ready\n":
        pass
    below = children(front.pid)
    assert len(below) == 4, "the template and three workers, one of them busy"
    with front.stdout, front.stdin:
        front.kill()
        front.wait()
    await until(lambda: not any(map(alive, below)))


async def test_what_a_model_prints_is_in_the_log_once_also_when_it_dies(model: Path) -> None:
    front = [sys.executable, "-c", FRONT, str(model), "say", "say"]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    ended = await asyncio.to_thread(
        subprocess.run, front, input=b"", env=buffered, capture_output=True, timeout=60, check=True
    )
    assert ended.stdout.count(b"said while loading") == 1
    assert ended.stdout.count(b"said before the end") == 2
