"""What lost and hostile workers cost: the prediction on them, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_server import memory
from model_server.errors import Code, Problem
from model_server.memory import Memory
from model_serving import until
from model_workers import MODEL, Pool, alive, answered, children, descriptors, parent, running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "model.py"
    file.write_text(MODEL)
    return file


def lost(error: BaseException | None) -> Problem:
    assert isinstance(error, Problem), error
    assert error.code is Code.WORKER_LOST
    return error


@pytest.mark.parametrize(
    ("do", "why"),
    [
        pytest.param("segfault", "SIGSEGV", id="it crashes"),
        pytest.param("exit", "exit code 3", id="it exits"),
        pytest.param("hang", "far longer", id="it hangs"),
        pytest.param("spin", "far longer", id="it never ends"),
        pytest.param("stop", "far longer", id="it stops itself"),
        pytest.param("close", "ended", id="it closes its descriptors"),
    ],
)
async def test_a_lost_worker_costs_one_request_and_is_replaced(model: Path, do: str, why: str) -> None:
    async with running(model, slots=2, limit=0.7) as pool:
        before = await pool.pids()
        poisoned = asyncio.create_task(pool.predict(do))
        for _ in range(20):
            assert (await pool.predict()).error is None
        assert why in lost((await poisoned).error).detail
        started = time.monotonic()
        after = await pool.pids()
        assert time.monotonic() - started < 2
        assert len(after) == 2, "both places are filled"
        assert len(after & before) == 1, "the other one worked on"
        assert pool.lost == 1
        await until(lambda: not any(map(alive, before - after)))


async def test_memory_that_runs_out_costs_one_request(model: Path) -> None:
    async with running(model) as pool:
        pid = await pool.pid()
        resource.prlimit(pid, resource.RLIMIT_DATA, (2**28, 2**28))
        error = (await pool.predict("eat")).error
        assert "MemoryError" in str(error)
        assert await pool.pid() == pid, "where Python notices, it is an error like any other"


async def test_who_has_filled_the_container_is_ended_before_the_kernel_ends_it_all(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many clusters let the kernel end a container as a whole."""
    room = 2**30
    monkeypatch.setattr(memory, "now", lambda: Memory(2**30, room))
    async with running(model, slots=2) as pool:
        before = await pool.pids()
        taken = asyncio.create_task(pool.predict("hoard"))
        await asyncio.sleep(0.5)
        room = 2**20
        assert "nearly out of memory" in lost((await taken).error).detail
        after = await pool.pids()
        assert (len(after), len(after & before), pool.lost) == (2, 1, 1)
        await asyncio.sleep(0.5)
        assert await pool.pids() == after, "nobody else has taken anything: a container that is small stays as it is"


async def test_a_hundred_kills_cost_a_hundred_requests_and_nothing_else(model: Path) -> None:
    async with running(model, slots=2) as pool:
        await pool.pids()
        opened, processes = descriptors(), len(children(os.getpid()))
        answers = []
        for number in range(200):
            if number == 50:
                resident = resident_bytes()
            outcome = await pool.predict("exit" if number % 2 else "echo", x=np.ones(10_000))
            answers.append(outcome.error is None)
        assert answers == [True, False] * 100
        await until(lambda: pool.pool.ready == 2)
        assert pool.lost == 100
        assert descriptors() == opened
        assert len(children(os.getpid())) == processes
        assert resident_bytes() - resident < 4e6


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_workers_killed_between_requests_cost_none(model: Path) -> None:
    async with running(model, slots=2) as pool:
        before = await pool.pids()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        while any(map(alive, before)):  # the loop has no chance to see it
            time.sleep(0.001)  # noqa: ASYNC251
        after = await pool.pids()
        assert len(after) == 2
        assert not after & before
        assert pool.lost == 2


async def test_a_run_of_poison_does_not_keep_the_next_request_waiting(model: Path) -> None:
    async with running(model) as pool:
        for _ in range(16):
            lost((await pool.predict("exit")).error)
        started = time.monotonic()
        assert await pool.pid()
        assert time.monotonic() - started < 2


async def test_a_worker_that_always_dies_is_replaced_after_longer_and_longer_pauses(model: Path) -> None:
    async with running(model) as pool:
        started = time.monotonic()
        for _ in range(20):
            lost((await pool.predict("exit")).error)
        assert time.monotonic() - started > 0.1 + 0.2 + 0.4
        assert await pool.pid()


async def test_a_lost_template_costs_nothing(model: Path) -> None:
    before = children(os.getpid())
    async with running(model, slots=2) as pool:
        pids = await pool.pids()
        (template,) = children(os.getpid()) - before - pids
        predicting = asyncio.create_task(pool.predict("nap"))
        await asyncio.sleep(0.1)
        os.kill(template, signal.SIGKILL)
        assert answered(await predicting)
        lost((await pool.predict("exit")).error)
        assert len(await pool.pids()) == 2, "another template has forked the missing one"
        assert len(children(os.getpid()) - before) == 3
        assert pool.lost == 1


async def test_what_a_model_has_started_ends_with_its_worker(model: Path) -> None:
    async with running(model) as pool:
        child = int(answered(await pool.predict("child"))["pid"][0])
        assert alive(child)
        await pool.predict("exit")
        await until(lambda: not alive(child))
        await until(lambda: parent(child) == 0, 3)  # reaped: no zombie stays


async def test_what_a_model_has_started_can_be_terminated_and_the_worker_cannot(model: Path) -> None:
    async with running(model) as pool:
        child = int(answered(await pool.predict("child"))["pid"][0])
        worker = await pool.pid()
        os.kill(worker, signal.SIGTERM)
        os.kill(child, signal.SIGTERM)
        await until(lambda: not alive(child))
        assert await pool.pid() == worker


async def test_the_memory_of_a_large_request_is_given_back(model: Path) -> None:
    async with running(model) as pool:
        before = memory_files()
        x = np.ones(8_000_000)
        assert np.array_equal(answered(await pool.predict(x=x))["x"], x)
        assert memory_files() - before <= 2 * 16 * 1024**2
        assert np.array_equal(answered(await pool.predict(x=x))["x"], x), "and it can be used again"


def memory_files() -> int:
    """Bytes that this process' memory files hold."""
    files = {}
    for fd in Path("/proc/self/fd").iterdir():
        if fd.is_symlink() and "memfd:" in os.readlink(fd):
            files[fd.stat().st_ino] = fd.stat().st_blocks * 512
    return sum(files.values())


def packet(header: Any, body: bytes = b"", outside: int = 0, size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<IIB", len(text), len(body) if size is None else size, outside) + text + body


def answer(*tensors: Any, **more: Any) -> dict[str, Any]:
    return {"tensors": list(tensors), "seconds": 0.1, "leaving": False, **more}


FORGED = {
    "a size beyond 64 bits": packet(answer(["y", "FP32", [2**70, 0], 0, 0])),
    "a size beyond memory": packet(answer(["y", "FP32", [2**62, 0], 0, 0])),
    "texts of a size beyond 64 bits": packet(answer(["y", "BYTES", [2**70, 0], 0, 0])),
    "too many dimensions": packet(answer(["y", "FP32", [1] * 65, 0, 4]), b"1234"),
    "a size that is no number": packet(answer(["y", "FP32", [True], 0, 4]), b"1234"),
    "before the memory": packet(answer(["y", "FP32", [1], -4, 4]), b"1234"),
    "behind the memory": packet(answer(["y", "FP32", [1], 1, 4]), b"1234"),
    "the same memory twice": packet(answer(["x", "FP32", [1], 0, 4], ["y", "FP32", [1], 0, 4]), b"1234"),
    "one name twice": packet(answer(["y", "FP32", [1], 0, 4], ["y", "FP32", [1], 4, 4]), b"12345678"),
    "a text longer than all": packet(answer(["y", "BYTES", [1], 0, 4]), b"\xff\xff\xff\xff"),
    "more texts than bytes": packet(answer(["y", "BYTES", [10**9], 0, 4]), b"\0\0\0\0"),
    "an unknown type": packet(answer(["y", "OBJECT", [1], 0, 8]), b"12345678"),
    "no time at all": packet(answer(seconds=float("nan"))),
    "negative time": packet(answer(seconds=-1.0)),
    "depth": packet(b"[" * 2000 + b"]" * 2000),
    "a pickle": packet(b"\x80\x04}."),
    "an empty header": packet({}),
    "ready again": packet({"ready": True}),
    "memory that isn't there": packet(answer(["y", "FP32", [1], 0, 4]), outside=1, size=4),
    "an error that is no text": packet(answer(error=["x"])),
    "a problem that is no text": packet(answer(problem={"x": 1})),
    "one byte": b"x",
    "cut short": packet(answer())[:-3],
    "too long": packet(answer()) + b"123",
    "longer than a packet": b"\0" * 150_000,
}


async def forge(pool: Pool, forged: bytes, do: str = "forge") -> Any:
    return await pool.predict(do, x=np.frombuffer(forged, np.uint8))


async def test_a_forged_answer_ends_its_worker(model: Path) -> None:
    async with running(model, limit=5) as pool:
        for name, forged in FORGED.items():
            before = await pool.pid()
            detail = lost((await forge(pool, forged)).error).detail
            assert "nonsense" in detail, name
            assert await pool.pid() != before, name
            await until(lambda pid=before: not alive(pid))  # type: ignore[misc]


async def test_forged_answers_cannot_claim_more_time_than_has_passed(model: Path) -> None:
    async with running(model) as pool:
        outcome = await forge(pool, packet(answer(seconds=1e300)))
        assert outcome.error is None
        assert outcome.seconds < 5


async def test_booleans_are_zero_or_one_whatever_a_worker_writes(model: Path) -> None:
    async with running(model) as pool:
        outcome = await forge(pool, packet(answer(["y", "BOOL", [2], 0, 2]), b"\x02\x00"))
        assert answered(outcome)["y"].view(np.uint8).tolist() == [1, 0]


async def test_an_answer_larger_than_the_machine_is_not_read(model: Path) -> None:
    async with running(model, limit=5) as pool:
        forged = packet(b"", outside=1, size=2**32 - 1)
        lost((await forge(pool, forged, "sparse")).error)
        assert await pool.pid()


async def test_an_error_of_whoever_asked_is_not_taken_for_the_workers(model: Path) -> None:
    async with running(model) as pool:
        before = await pool.pid()
        told: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))

        def done(_outcome: Any) -> None:
            raise ValueError("a bug of the dispatcher")

        pool.pool.submit({"do": np.array([b"echo"], object)}, done)
        await until(lambda: bool(told))
        assert str(told[0]) == "a bug of the dispatcher"
        assert await pool.pid() == before
        assert pool.lost == 0
