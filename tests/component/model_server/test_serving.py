"""A real process: it serves, refuses, notices who left, and its gauge is right afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_process import ServerProcess, connected, post, started
from model_serving import until

BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
INFER = "/v2/models/digits/infer"


def test_a_file_of_this_machine_is_served_after_one_command(server: ServerProcess) -> None:
    answer = httpx.post(server.url + INFER, json=BODY)
    assert answer.status_code == 200
    assert answer.json()["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 3.0]}]


def test_metrics_are_on_their_own_port_only(server: ServerProcess) -> None:
    httpx.post(server.url + INFER, json=BODY)
    assert server.metric('request_seconds_count{code="200"}') >= 1
    for phase in ("fetch", "load", "warmup", "ready"):
        assert server.metric(f'cold_start_seconds{{phase="{phase}"}}') > 0
    assert httpx.get(server.url + "/metrics").status_code == 404


def test_an_idle_connection_is_used_again(server: ServerProcess) -> None:
    with httpx.Client() as http:
        first = http.post(server.url + INFER, json=BODY)
        stream = first.extensions["network_stream"]
        assert http.post(server.url + INFER, json=BODY).extensions["network_stream"] is stream


async def test_one_more_than_slot_and_queue_hold_is_refused_fast(held: Any) -> None:
    async with httpx.AsyncClient(base_url=held.running.url, timeout=30) as http:
        waiting = [asyncio.create_task(http.post(INFER, json=BODY)) for _ in range(5)]
        await until(lambda: held.running.metric("queue_depth") == 4)
        started_at = time.monotonic()
        refused = await asyncio.gather(*(http.post(INFER, json=BODY) for _ in range(20)))
        assert time.monotonic() - started_at < 2
        assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(429, "queue_full")}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        held.let_go()
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 5
    assert held.calls == 5


async def test_clients_that_leave_the_queue_are_never_computed(held: Any) -> None:
    running = held.running
    async with httpx.AsyncClient(base_url=running.url, timeout=30) as http:
        first = asyncio.create_task(http.post(INFER, json=BODY))
        await until(lambda: held.calls == 1)
        for _ in range(10):
            async with connected(running.port) as (_, writer):
                writer.write(post(INFER, httpx.Request("POST", "http://x", json=BODY).content))
                await writer.drain()
                await until(lambda: running.metric("queue_depth") == 1)
            await until(lambda: running.metric("queue_depth") == 0)
        held.let_go()
        assert (await first).status_code == 200
    assert held.calls == 1
    assert running.metric("cancelled_total") == 10
    assert running.metric('request_seconds_count{code="499"}') == 10
    assert running.metric("requests_in_flight") == 0


async def test_the_gauge_is_zero_after_a_storm_of_departures_deadlines_and_bad_requests(held: Any) -> None:
    chance, running = random.Random(3), held.running  # noqa: S311 - it is for a test
    content = httpx.Request("POST", "http://x", json=BODY).content

    async def one() -> None:
        kind = chance.choice(["leave", "leave in the body", "deadline", "bad", "stay"])
        async with connected(running.port) as (reader, writer):
            sent = post(
                INFER, b"{}" if kind == "bad" else content, *(["x-request-timeout-ms: 20"] * (kind == "deadline"))
            )
            writer.write(sent[:-5] if kind == "leave in the body" else sent)
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(0.5 if kind != "leave" else chance.random() / 50):
                    await reader.read(100)

    await asyncio.gather(*(one() for _ in range(100)))
    held.let_go()
    await until(lambda: running.metric("requests_in_flight") == 0)
    async with httpx.AsyncClient(base_url=running.url) as http:
        assert (await http.post(INFER, json=BODY)).status_code == 200
    assert running.metric("queue_depth") == 0


async def test_in_flight_counts_what_runs_and_what_waits(held: Any) -> None:
    async with httpx.AsyncClient(base_url=held.running.url, timeout=30) as http:
        asked = [asyncio.create_task(http.post(INFER, json=BODY)) for _ in range(3)]
        await until(lambda: held.running.metric("requests_in_flight") == 3)
        assert held.running.metric("queue_depth") == 2
        held.let_go()
        await asyncio.gather(*asked)
    assert held.running.metric("requests_in_flight") == 0


@pytest.mark.parametrize("held", [{"TIMEOUT_MILLISECONDS": "100"}], indirect=True)
def test_a_client_is_answered_at_its_deadline_although_the_model_goes_on(held: Any) -> None:
    started_at = time.monotonic()
    answer = httpx.post(held.running.url + INFER, json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
    assert time.monotonic() - started_at < 2
    assert held.running.metric("requests_in_flight") == 1
    held.let_go()


def test_probes_answer_while_a_python_model_computes(tmp_path: Path) -> None:
    source = "class Busy:\n  def predict(self, inputs):\n    return sum(i * i for i in range(20_000_000))\n"
    (tmp_path / "busy.py").write_text(source)
    with started("--model", f"digits={tmp_path}/busy.py", "--format", "python") as running:
        with httpx.Client(base_url=running.url, timeout=30) as http:
            slow = started_thread(lambda: http.post(INFER, json=BODY))
            deadline, slowest = time.monotonic() + 1, 0.0
            with httpx.Client(base_url=running.url) as prober:
                while time.monotonic() < deadline:
                    asked = time.monotonic()
                    assert prober.get("/v2/health/live").status_code == 200
                    slowest = max(slowest, time.monotonic() - asked)
            slow.join()
        assert slowest < 1


def started_thread(work: Any) -> Any:
    import threading

    thread = threading.Thread(target=work)
    thread.start()
    return thread
