"""What all works share in one run: calibration, times, and servers that run while they are asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.server.calibrate import Calibration
from benchmarks.server.dialects import Array, Dialect, constant
from benchmarks.server.processes import Tree, free_port
from benchmarks.server.starting import Server, Start
from benchmarks.server.wire import Connection
from inflight_demo.console import Console

_START_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.005
_QUIET_WINDOW: Final = 0.5
_QUIET_SHARE: Final = 0.1
_QUIET_SECONDS: Final = 25.0


@dataclass(frozen=True)
class Question:
    """One input and the answer that it must get."""

    x: Array
    wanted: Array


@dataclass(frozen=True)
class Running:
    """A server that has answered once, rightly."""

    server: Server
    tree: Tree
    port: int
    metrics_port: int
    """Of ours."""
    dialect: Dialect
    predictions: Path
    """Where the models note theirs."""
    first_answer_seconds: float
    """From its start."""

    async def quiet(self) -> float:
        """CPU seconds it uses from now until it has nothing to do, 25 s at most."""
        began, start = self.tree.cpu_seconds(), time.monotonic()
        used, since = began, start
        while since - start < _QUIET_SECONDS:
            await asyncio.sleep(_QUIET_WINDOW)
            before, used, earlier, since = used, self.tree.cpu_seconds(), since, time.monotonic()
            if used - before < _QUIET_SHARE * (since - earlier):
                break
        return used - began


class NoAnswerError(Exception):
    """A server that didn't start, or whose first answer was wrong."""


@dataclass(frozen=True)
class Session:
    """One run of the benchmark."""

    calibration: Calibration
    directory: Path
    console: Console
    seconds: int
    """Of each load."""
    mix_seconds: float = 60
    """Of the crash mix."""
    soak_seconds: float = 60
    """Of the healthy load beside and after the mix, for ours."""

    @asynccontextmanager
    async def serving(self, server: Server, work: str, question: Question) -> AsyncIterator[Running]:
        """Start a server, wait for its first right answer, leave nothing of it. NoAnswerError has its last words."""
        where = self.directory / f"{work}-{server.name}"
        where.mkdir(parents=True, exist_ok=True)
        predictions = where / "predictions"
        predictions.unlink(missing_ok=True)
        environment = self.calibration.environment() | {"BENCH_PREDICTIONS": str(predictions)}
        start = Start(work, free_port(), (free_port(), free_port()), where, environment, constant(question.wanted))
        began = time.monotonic()
        with Tree(server.command(start), server.full_environment(start), where, where / "log") as tree:
            dialect = server.talk(work)
            await _first_answer(tree, start.port, dialect, question)
            taken = time.monotonic() - began
            yield Running(server, tree, start.port, start.others[0], dialect, predictions, taken)


async def _first_answer(tree: Tree, port: int, dialect: Dialect, question: Question) -> None:
    deadline = time.monotonic() + _START_SECONDS
    message, last = dialect.message(question.x), "nothing"
    while time.monotonic() < deadline and tree.running():
        connection = Connection()
        try:
            async with asyncio.timeout(_START_SECONDS):
                await connection.connect(port)
                answer = await connection.ask(message)
        except (OSError, TimeoutError):
            await asyncio.sleep(_LOOK_SECONDS)
            continue
        finally:
            connection.abort()
        if answer.status == 200 and dialect.matches(answer.body, question.wanted):
            return
        last = f"{answer.status} {answer.body[:200]!r}"
        await asyncio.sleep(_LOOK_SECONDS)
    raise NoAnswerError(f"no right answer ({last}); its output ends with: {tree.last_words()}")
