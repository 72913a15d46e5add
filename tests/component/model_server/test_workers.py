"""Worker processes: what becomes of requests, of the other workers and of the pool when one is lost."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_server.errors import Code, LoadFailure, Problem, Reason
from model_server.executor import Outcome
from model_server.models.tensors import Tensors
from model_server.workers.pool import WorkerPool
from model_server.workers.supervisor import ModelFiles
from model_server.workers.worker import Recycling
from model_serving import until

MODEL = """
import ctypes, os, sys, time
import numpy as np

class Model:
    '''Does what its first input says, and answers its process and its input.'''

    def load(self, path):
        self.weights = np.ones(1 << 16)
        self.kept = []

    def predict(self, inputs):
        what = inputs.get("do")
        what = what.reshape(-1)[0].decode() if what is not None else ""
        if what == "segfault":
            ctypes.string_at(0)
        elif what == "exit":
            os._exit(3)
        elif what == "hang":
            time.sleep(600)
        elif what == "spin":
            while True: pass
        elif what == "eat":
            while True: self.kept.append(np.ones(1 << 22))
        elif what == "refuse":
            raise ValueError("that is no digit")
        elif what == "raise":
            raise KeyError("secret")
        elif what == "system-exit":
            sys.exit(1)
        elif what == "garbage":
            for fd in range(3, 64):
                try:
                    os.write(fd, b"\\x80\\x04nonsense" * 3)
                except OSError:
                    pass
        elif what == "complex":
            return {"y": np.ones(3, complex)}
        return {"pid": np.array([os.getpid()]), **{k: v for k, v in inputs.items() if k != "do"}}
"""


class Pool:
    """A pool and what is known about it."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.lost = 0

    async def predict(self, do: str = "", **inputs: Any) -> Outcome:
        told = {"do": np.array([do.encode()], object)} if do else {}
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.pool.submit({**told, **inputs}, ended.set_result)
        async with asyncio.timeout(20):
            return await ended

    async def pid(self) -> int:
        return int(answered(await self.predict())["pid"][0])


def answered(outcome: Outcome) -> Tensors:
    assert outcome.outputs is not None, outcome.error
    return outcome.outputs


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "model.py"
    file.write_text(MODEL)
    return file


NEVER = Recycling()


def files(path: Path) -> ModelFiles:
    return ModelFiles(path, "python", "", 1, 2**30, "cpu")


@asynccontextmanager
async def running(source: Path, slots: int = 1, limit: float = 30, recycling: Recycling = NEVER) -> AsyncIterator[Pool]:
    pool: Pool

    def lost() -> None:
        pool.lost += 1

    pool = Pool(WorkerPool(slots, limit, lost, recycling))
    try:
        await pool.pool.start(files(source))
        yield pool
    finally:
        pool.pool.stop()


def children(pid: int) -> set[int]:
    """Every process below `pid` that isn't a zombie."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            if alive(child):
                found |= {child} | children(child)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
async def shared(source: Path) -> AsyncIterator[Pool]:
    """A pool whose workers are left as they were."""
    async with running(source) as pool:
        yield pool


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


async def test_predictions_run_in_other_processes_at_once(source: Path) -> None:
    async with running(source, slots=2) as pool:
        pids = {int(answered(outcome)["pid"][0]) for outcome in await asyncio.gather(*(pool.predict() for _ in "ab"))}
        assert len(pids) == 2
        assert os.getpid() not in pids
        assert pids <= children(os.getpid())


async def test_tensors_come_back_as_they_went(shared: Pool) -> None:
    for datatype in ("bool", "int8", "uint64", "float16", "float32", "float64"):
        for shape in ((), (1,), (0, 4), (3, 5), (700, 1000)):
            sent = (np.arange(np.prod(shape, dtype=int)) % 100).reshape(shape).astype(datatype)
            got = answered(await shared.predict(x=sent))["x"]
            assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
            assert np.array_equal(got, sent)


async def test_texts_come_back_as_they_went(shared: Pool) -> None:
    sent = np.array([[b"", "ä".encode()], [b"\x00\xff", b"x" * 100_000]], object)
    assert answered(await shared.predict(x=sent))["x"].tolist() == sent.tolist()


async def test_an_answer_isnt_changed_by_the_next_one(shared: Pool) -> None:
    first = answered(await shared.predict(x=np.zeros(100_000)))["x"]
    await shared.predict(x=np.ones(100_000))
    assert not first.any()


@pytest.mark.parametrize(
    ("do", "why"),
    [
        pytest.param("segfault", "ended", id="a segfault"),
        pytest.param("exit", "ended", id="an exit"),
        pytest.param("hang", "far longer", id="a hang"),
        pytest.param("spin", "far longer", id="an endless loop"),
        pytest.param("garbage", "nonsense", id="a model that writes to descriptors that aren't its own"),
    ],
)
async def test_a_lost_worker_costs_one_request_and_is_replaced(source: Path, do: str, why: str) -> None:
    async with running(source, slots=2, limit=0.7 if "far" in why else 30) as pool:
        other = await pool.pid()
        poisoned = asyncio.create_task(pool.predict(do))
        await asyncio.sleep(0.05)
        fine = [await pool.predict() for _ in range(20)]
        assert all(outcome.error is None for outcome in fine)
        error = (await poisoned).error
        assert isinstance(error, Problem)
        assert error.code is Code.WORKER_LOST
        assert why in error.detail
        await until(lambda: len(pool.pool._idle) == 2, 2)  # both places are filled again
        assert pool.lost == 1
        assert await pool.pid() == other


async def test_a_worker_that_eats_all_memory_costs_one_request(source: Path) -> None:
    async with running(source) as pool:
        pid = await pool.pid()
        resource.prlimit(pid, resource.RLIMIT_AS, (2**30, 2**30))
        error = (await pool.predict("eat")).error
        assert error is not None
        assert "Memory" in str(error)
        assert await pool.pid() == pid, "running out of memory is an error like any other where Python notices"


@pytest.mark.parametrize(
    ("do", "kind", "text"),
    [
        pytest.param("refuse", Problem, "the model refused the input: that is no digit", id="it blames the input"),
        pytest.param("raise", Exception, "KeyError: 'secret'", id="it raises"),
        pytest.param("system-exit", Exception, "SystemExit: 1", id="it exits"),
        pytest.param("complex", Exception, "complex", id="it answers what the protocol has no name for"),
    ],
)
async def test_an_error_is_told_and_the_worker_stays(shared: Pool, do: str, kind: type, text: str) -> None:
    before = await shared.pid()
    error = (await shared.predict(do)).error
    assert isinstance(error, kind)
    assert text in str(error)
    assert await shared.pid() == before


async def test_the_traceback_comes_for_the_log(shared: Pool) -> None:
    error = (await shared.predict("raise")).error
    assert "Traceback" in str(error)
    assert "predict" in str(error)


async def test_a_hundred_kills_cost_a_hundred_requests_and_nothing_else(source: Path) -> None:
    async with running(source, slots=2) as pool:
        await asyncio.gather(*(pool.predict() for _ in range(4)))
        descriptors = len(os.listdir("/proc/self/fd"))
        outcomes = []
        for number in range(200):
            outcomes.append(await pool.predict("exit" if number % 2 else ""))
        assert [outcome.error is None for outcome in outcomes] == [True, False] * 100
        await until(lambda: len(pool.pool._idle) == 2)
        assert pool.lost == 100
        assert len(os.listdir("/proc/self/fd")) <= descriptors
        assert len(children(os.getpid())) == 3, "the template and two workers"


async def test_a_lost_template_takes_its_workers_with_it_and_all_come_back(source: Path) -> None:
    async with running(source, slots=2) as pool:
        pids = {await pool.pid() for _ in range(4)}
        template = parent(pids.pop())
        os.kill(template, signal.SIGKILL)
        await until(lambda: not alive(template) and pool.lost == 2)
        assert (await pool.predict()).error is None
        await until(lambda: len(pool.pool._idle) == 2, 10)


async def test_workers_make_way_for_fresh_ones_between_requests(source: Path) -> None:
    async with running(source, recycling=Recycling(max_requests=3)) as pool:
        pids = [await pool.pid() for _ in range(9)]
        assert [len(set(pids[at : at + 3])) for at in (0, 3, 6)] == [1, 1, 1]
        assert len(set(pids)) == 3
        assert pool.lost == 0


async def test_a_model_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("import no_such_module\nclass Model:\n    def predict(self, x): return x\n")
    pool = WorkerPool(1, 30, lambda: None, Recycling())
    with pytest.raises(LoadFailure) as raised:
        await pool.start(files(tmp_path / "model.py"))
    assert raised.value.reason is Reason.LOAD_FAILED
    assert "no_such_module" in raised.value.message
    pool.stop()


async def test_a_model_that_dies_at_its_first_prediction_is_a_failure_to_load(tmp_path: Path) -> None:
    source = "import os\nclass Model:\n    inputs = [{'name': 'x', 'datatype': 'FP32', 'shape': [1]}]\n"
    (tmp_path / "model.py").write_text(source + "    def predict(self, inputs): os._exit(7)\n")
    pool = WorkerPool(2, 30, lambda: None, Recycling())
    with pytest.raises(LoadFailure, match="before it had answered anything"):
        async with asyncio.timeout(20):
            await pool.start(files(tmp_path / "model.py"))
    pool.stop()


async def test_a_model_with_threads_is_loaded_by_every_worker(tmp_path: Path) -> None:
    thread = "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()"
    text = "import threading\n" + MODEL.replace("self.kept = []", f"self.kept = []; {thread}")
    (tmp_path / "model.py").write_text(text)
    async with running(tmp_path / "model.py", slots=2) as pool:
        pids = {int(answered(outcome)["pid"][0]) for outcome in await asyncio.gather(*(pool.predict() for _ in "ab"))}
        assert len(pids) == 2
        assert isinstance((await pool.predict("exit")).error, Problem)
        assert (await pool.predict()).error is None


FRONT = """
import asyncio, os, sys
from pathlib import Path
from model_server.workers.pool import WorkerPool
from model_server.workers.supervisor import ModelFiles
from model_server.workers.worker import Recycling

async def main():
    pool = WorkerPool(3, 30, lambda: None, Recycling())
    await pool.start(ModelFiles(Path(sys.argv[1]), "python", "", 1, 2**30, "cpu"))
    print("ready", file=sys.stderr, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_when_the_front_is_killed_nothing_stays(source: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", FRONT, str(source)], stderr=subprocess.PIPE) as front:
        assert front.stderr is not None
        assert front.stderr.readline() == b"ready\n"
        below = children(front.pid)
        assert len(below) == 4
        front.kill()
    asyncio.run(until(lambda: not any(map(alive, below))))
