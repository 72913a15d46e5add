"""W1, W3, W4: as fast as wrk's closed loops go, while another client checks that answers are right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.server import outcomes, wrk
from benchmarks.server.calibrate import rows_model
from benchmarks.server.models import tiny
from benchmarks.server.models.rows import FEATURES
from benchmarks.server.samples import Sample
from benchmarks.server.session import Question, Running, Session
from benchmarks.server.starting import Server
from benchmarks.server.wire import Connection

CONNECTIONS: Final = {"W1": (1, 16, 64), "W3": (1, 64), "W4": (4,)}
_DIFFERENT: Final = 16
_WARM_UP_SECONDS: Final = 1
_CHECK_SECONDS: Final = 10.0


def point(connections: int) -> str:
    """The load's name."""
    return f"{connections} connection{'s' if connections > 1 else ''}"


def questions(work: str, session: Session) -> list[Question]:
    """Different inputs with their right answers, computed here."""
    rng = np.random.default_rng(7)
    match work:
        case "W1" | "W5":
            inputs = [rng.normal(size=(1, tiny.FEATURES)).astype(np.float32).round(3) for _ in range(_DIFFERENT)]
            return [Question(x, tiny.classify(x)) for x in inputs]
        case "W3":
            model = rows_model(session.calibration)
            inputs = [rng.normal(size=(1, FEATURES)).astype(np.float32).round(3) for _ in range(_DIFFERENT)]
            return [Question(x, model.predict({"x": x})["y"]) for x in inputs]
        case _:
            inputs = [rng.normal(size=tiny.IMAGE).astype(np.float32) for _ in range(2)]
            return [Question(x, x.mean(axis=(1, 2))) for x in inputs]


@dataclass
class _Checks:
    asked: int = 0
    wrong: int = 0
    first_wrong: str = ""


async def measure(server: Server, work: str, session: Session, number: int) -> AsyncIterator[Sample]:
    """Every number of connections, one after the other, on one start of the server."""
    asked = questions(work, session)
    if server.kind == "ceiling":
        asked = asked[:1]  # some of them know one answer only
    async with session.serving(server, work, asked[0]) as running:
        await wrk.run(running.port, running.dialect.message(asked[0].x), CONNECTIONS[work][-1], _WARM_UP_SECONDS)
        for connections in CONNECTIONS[work]:
            yield await _loaded(running, work, asked, connections, seconds=session.seconds, number=number)


async def _loaded(
    running: Running, work: str, asked: Sequence[Question], connections: int, *, seconds: int, number: int
) -> Sample:
    checks = _Checks()
    checking = asyncio.create_task(_check(running, asked, checks, _pause(work, connections)))
    before, rows_before = running.tree.cpu_seconds(), len(outcomes.read(running.predictions))
    try:
        report = await wrk.run(running.port, running.dialect.message(asked[0].x), connections, seconds)
    finally:
        checking.cancel()
        await asyncio.gather(checking, return_exceptions=True)
    used = running.tree.cpu_seconds() - before
    calls = outcomes.read(running.predictions)[rows_before:]
    answered = report.rps * seconds + checks.asked
    values = {
        "rps": report.rps,
        "p50_ms": report.p50_ms,
        "p99_ms": report.p99_ms,
        "failed": report.failed,
        "checked": checks.asked,
        "wrong": checks.wrong,
        "cpu_us_per_request": 1e6 * used / answered if answered else float("nan"),
        "generator_share": report.generator_share,
    }
    if calls:
        values["mean_batch"] = sum(call.rows for call in calls) / len(calls)
    notes = (checks.first_wrong,) if checks.first_wrong else ()
    return Sample(work, running.server.name, point(connections), number, values, notes)


def _pause(work: str, connections: int) -> float:
    """Seconds between checks: the checking client must not be a second one that a lone client waits for."""
    return 1.0 if connections == 1 else 0.2 if work == "W4" else 0.05


async def _check(running: Running, asked: Sequence[Question], checks: _Checks, pause: float) -> None:
    """Ask in turn, a few times a second beside the load; a refusal or no answer in 10 s is as wrong as a wrong one."""
    connection = Connection()
    try:
        while True:
            question = asked[checks.asked % len(asked)]
            checks.asked += 1
            said = ""
            try:
                async with asyncio.timeout(_CHECK_SECONDS):
                    if not connection.open:
                        connection = Connection()
                        await connection.connect(running.port)
                    answer = await connection.ask(running.dialect.message(question.x))
                right = answer.status == 200 and running.dialect.matches(answer.body, question.wanted)
                said = f"{answer.status} {answer.body[:150].decode('latin-1')}"
            except (OSError, TimeoutError) as error:
                connection.abort()
                right, said = False, f"{type(error).__name__} {error}"
            if not right:
                checks.wrong += 1
                checks.first_wrong = checks.first_wrong or said
            await asyncio.sleep(pause)
    finally:
        connection.abort()
