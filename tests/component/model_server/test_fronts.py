"""A quick model on two processes: connections move between requests, and the pod stays one server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from model_process import ServerProcess, connected, post, started
from model_serving import until

BODY = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}'
REQUEST = post("/v2/models/digits/infer", BODY)
STARTED, DISMISSED = "another front process starts", "a front process is not needed any more"


@pytest.fixture
def running(onnx_file: Path) -> AsyncIterator[ServerProcess]:
    """A server that takes 5 % of a core for busy."""
    settings = {"CONCURRENCY": "2", "MAX_QUEUE": "64", "FRONT_BUSY_PERCENT": "5"}
    with started("--model", f"digits={onnx_file}", **settings) as server:
        yield server


@asynccontextmanager
async def load(server: ServerProcess, clients: int = 8) -> AsyncIterator[Counter[str]]:
    """Clients that ask all the time on a connection each; counts what they got."""
    seen: Counter[str] = Counter()
    ends = asyncio.Event()

    async def client() -> None:
        async with connected(server.port) as (reader, writer):
            while not ends.is_set():
                writer.write(REQUEST)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                right = b'"data":[2.0,3.0]' in body
                seen[head.split(b"\r\n")[0].decode() + ("" if right else " wrong")] += 1
                if b"connection: close" in head.lower():
                    return

    async def whole() -> None:
        try:
            await client()
        except (asyncio.IncompleteReadError, ConnectionError):
            seen["lost"] += 1

    tasks = [asyncio.create_task(whole()) for _ in range(clients)]
    try:
        yield seen
    finally:
        ends.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)


async def helped(server: ServerProcess) -> int:
    """Wait until another process serves half of the connections; its pid."""
    line = await asyncio.to_thread(server.wait_for, STARTED)
    await until(lambda: 3 <= connections_of(line["pid"]) <= 5, seconds=20)
    return int(line["pid"])


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def connections_of(pid: int) -> int:
    """TCP sockets that a process has open."""
    found = 0
    with contextlib.suppress(OSError):
        tcp = {line.split()[9] for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]}
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                link = os.readlink(entry)
                found += link.startswith("socket:[") and link[8:-1] in tcp
    return found


async def test_connections_are_shared_and_no_request_is_lost(running: ServerProcess) -> None:
    async with load(running) as seen:
        await helped(running)
        before = seen.total()
        await until(lambda: seen.total() > before + 200)
    assert set(seen) == {"HTTP/1.1 200 OK"}
    await until(lambda: running.metric('request_seconds_count{code="200"}') == seen.total())
    await until(lambda: running.metric("requests_in_flight") == 0)


async def test_a_killed_process_costs_what_it_was_answering_and_is_replaced(running: ServerProcess) -> None:
    async with load(running) as seen:
        os.kill(await helped(running), signal.SIGKILL)
        await until(lambda: seen["lost"] > 0)
        before = seen.total()
        await until(lambda: seen.total() > before + 200)  # the others go on
    assert set(seen) == {"HTTP/1.1 200 OK", "lost"}
    assert seen["lost"] <= 5
    assert running.metric('request_seconds_count{code="200"}') <= seen["HTTP/1.1 200 OK"]  # its last quarter second
    async with load(running) as again:
        await until(lambda: sum(line.get("event") == STARTED for line in running.log) == 2, seconds=20)
    assert set(again) == {"HTTP/1.1 200 OK"}


async def test_a_stop_waits_for_all_processes(running: ServerProcess) -> None:
    async with load(running) as seen:
        pid = await helped(running)
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.ended) == 0
    assert set(seen) == {"HTTP/1.1 200 OK"}
    assert not alive(pid)


RESTLESS = """
from dataclasses import replace
import model_server.fronts.lead as lead
usual = lead.limits
lead.limits = lambda settings: replace(usual(settings), idle=9.0, idle_seconds=0.5)
"""


async def test_processes_that_come_and_go_lose_nothing(onnx_file: Path) -> None:
    """One that is never busy enough to stay, under a load for which another one is started each time."""
    settings = {"CONCURRENCY": "2", "MAX_QUEUE": "64", "FRONT_BUSY_PERCENT": "5"}
    with started("--model", f"digits={onnx_file}", before=RESTLESS, **settings) as server:
        async with load(server) as seen:
            await until(lambda: sum(line.get("event") == DISMISSED for line in server.log) >= 3, seconds=40)
        assert set(seen) == {"HTTP/1.1 200 OK"}
        await until(lambda: server.metric('request_seconds_count{code="200"}') == seen.total())
        await until(lambda: server.metric("requests_in_flight") == 0)
    pids = [line["pid"] for line in server.log if line.get("event") == STARTED]
    assert len(pids) >= 3


async def test_none_stays_when_the_first_is_killed(running: ServerProcess) -> None:
    async with load(running):
        pid = await helped(running)
        running.process.kill()
        await until(lambda: not alive(pid))


async def test_idle_connections_are_served_by_whoever_has_them(running: ServerProcess) -> None:
    """Also after the load, when all is answered: each of them once more, by one process or the other."""
    async with contextlib.AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(running.port)) for _ in range(4)]
        for reader, writer in idle:
            writer.write(REQUEST)
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
            await reader.readuntil(b"}]}")
        async with load(running):
            await until(lambda: any(line.get("event") == STARTED for line in running.log), seconds=20)
            await asyncio.sleep(1)
        for reader, writer in idle:
            writer.write(REQUEST)
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
            await reader.readuntil(b"}]}")


async def test_other_paths_are_answered_by_either(running: ServerProcess) -> None:
    async with load(running):
        await helped(running)
        async with httpx.AsyncClient(base_url=running.url) as http:
            for _ in range(20):
                for path in ("/v2/health/ready", "/v2/models/digits", "/v2"):
                    assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"CONCURRENCY": "1"}, id="one prediction at once"),
        pytest.param({"BATCH_MAX_ROWS": "4"}, id="batches are gathered in one place"),
        pytest.param({"CACHE_MAX_MEGABYTES": "1"}, id="answers are kept in one place"),
        pytest.param({"FRONT_BUSY_PERCENT": "0"}, id="not wanted"),
    ],
)
async def test_one_process_where_more_would_not_do(onnx_file: Path, settings: dict[str, str]) -> None:
    wanted = {"CONCURRENCY": "2", "FRONT_BUSY_PERCENT": "1", **settings}
    with started("--model", f"digits={onnx_file}", **wanted) as server:
        async with load(server, 4):
            await asyncio.sleep(1.5)
        assert not any(line.get("event") == STARTED for line in server.log)
