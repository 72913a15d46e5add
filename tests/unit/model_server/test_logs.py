"""Log lines: JSON, and each with the id of its own request, whichever request's callback wrote it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog

from model_server import logs
from model_server.decide.batch_plan import Limits
from model_serving import FakeModel, Gate, request, serving, tensor, until


@contextmanager
def configured() -> Iterator[None]:
    """Logs as the process has them, to the standard error of now."""
    logs.configure("debug", model="digits", variant="")
    try:
        yield
    finally:
        logs.verbose, logs._given = False, {}
        structlog.reset_defaults()
        logging.basicConfig(handlers=[], force=True)


Capture = pytest.CaptureFixture[str]


def written(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_lines_have_what_is_bound_to_the_process_and_the_request(capsys: Capture) -> None:
    with configured():
        token = logs.request_id.set("r-1")
        structlog.get_logger().info("hello", answer=42)
        logging.getLogger("uvicorn.error").warning("from a library")
        logs.request_id.reset(token)
        structlog.get_logger().info("later")
    first, library, later = written(capsys)
    assert (first["event"], first["answer"], first["model"], first["request_id"]) == ("hello", 42, "digits", "r-1")
    assert (library["event"], library["request_id"]) == ("from a library", "r-1")
    assert "request_id" not in later
    assert "variant" not in first
    assert {"timestamp", "level"} <= set(first)


class Talkative(Gate):
    """A model that logs what it computes, then fails."""

    def __call__(self, inputs: Any) -> Any:
        super().__call__(inputs)
        structlog.get_logger().info("computing", x=inputs["x"].tolist())
        raise RuntimeError(f"can't: {inputs['x'][0][0]}")


async def test_each_line_of_a_prediction_has_its_own_request_id(capsys: Capture) -> None:
    gate = Talkative()
    with configured():
        async with serving(FakeModel(function=gate)) as server:
            names = [f"r-{number}" for number in range(4)]
            asked = []
            for number, name in enumerate(names):
                row = request(tensor([number, 0], [1, 2]))
                asked.append(asyncio.create_task(server.infer(row, x_request_id=name)))
                await until(lambda n=number: server.dispatcher.in_flight == n + 1)  # type: ignore[misc]
            gate.open.set()  # the three that wait are started, and answered, in the callbacks of those before them
            await asyncio.gather(*asked)
    lines = written(capsys)
    for number, name in enumerate(names):
        own = {line["event"]: line for line in lines if line.get("request_id") == name}
        assert set(own) == {"computing", "prediction failed", "answered"}
        assert own["computing"]["x"] == [[number, 0]]
        assert own["prediction failed"]["error"] == f"can't: {number}.0"
        assert own["answered"]["status"] == 500


async def test_a_batchs_own_lines_are_nobodys(capsys: Capture) -> None:
    gate = Talkative()
    with configured():
        async with serving(FakeModel(function=gate), limits=Limits(max_rows=8, max_delay=0)) as server:
            asked = []
            for number in range(3):
                asked.append(asyncio.create_task(server.infer(request(), x_request_id=f"r-{number}")))
                await until(lambda n=number: server.dispatcher.in_flight == n + 1)  # type: ignore[misc]
            gate.open.set()
            await asyncio.gather(*asked)
    batch = [line for line in written(capsys) if line["event"] == "computing" and len(line["x"]) == 2]
    assert len(batch) == 1
    assert "request_id" not in batch[0]


async def test_refusing_one_request_in_anothers_callback_leaves_the_others_id_alone(capsys: Capture) -> None:
    gate = Gate()
    with configured():
        async with serving(FakeModel(function=gate), max_queue=1) as server:
            running = asyncio.create_task(server.infer(request(), x_request_id="running"))
            await gate.wait_entered()
            low = asyncio.create_task(server.infer(request(), x_request_id="low", x_priority="low"))
            await until(lambda: server.dispatcher.queue_depth == 1)
            high = asyncio.create_task(server.infer(request(), x_request_id="high", x_priority="high"))
            assert (await low).status_code == 429
            gate.open.set()
            await asyncio.gather(running, high)
    statuses = {line["request_id"]: line["status"] for line in written(capsys) if line["event"] == "answered"}
    assert statuses == {"running": 200, "low": 429, "high": 200}
