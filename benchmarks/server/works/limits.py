"""What the hardware gives in the same round: bare processes that loop a model and answer nobody."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import Final

from benchmarks.server import outcomes, venvs
from benchmarks.server.outcomes import Predicted
from benchmarks.server.processes import Tree
from benchmarks.server.samples import Sample, quantile
from benchmarks.server.session import Session
from benchmarks.server.starting import HERE, MODELS, ONE_THREAD

LIMIT: Final = "limit"
"""The name of both the server and the load."""
_CORES: Final = 2
_CLIENTS: Final = 64


async def chains(session: Session, number: int, seconds: float | None = None) -> Sample:
    """W2: predictions a second of two processes."""
    looped = await _looped(session, _CORES, seconds or session.seconds, "chain")
    return Sample("W2", LIMIT, LIMIT, number, {"goodput": sum(outcomes.rate([p.end for p in each]) for each in looped)})


async def rows(session: Session, number: int) -> Sample:
    """W3: rows a second of two processes, each with half of the clients' rows in a batch; and ms of a lone row."""
    together = await _looped(session, _CORES, session.seconds, "rows", str(_CLIENTS // _CORES))
    rate = sum(outcomes.rate([p.end for p in each]) * _CLIENTS / _CORES for each in together)
    (alone,) = await _looped(session, 1, 2, "rows", "1")
    model = quantile([1000 * (p.end - p.start) for p in alone], 0.5)
    return Sample("W3", LIMIT, LIMIT, number, {"rps": rate, "model_ms": model})


async def _looped(session: Session, processes: int, seconds: float, *arguments: str) -> list[list[Predicted]]:
    files = [session.directory / f"limit-{number}" for number in range(processes)]
    command = [str(venvs.python("ours")), str(HERE / "ceilings" / "loop.py"), *arguments]
    with ExitStack() as stack:
        for file in files:
            file.unlink(missing_ok=True)
            own = {"BENCH_PREDICTIONS": str(file), "PYTHONPATH": str(MODELS)}
            environment = {**session.calibration.environment(), **ONE_THREAD, **own}
            stack.enter_context(Tree(command, environment, session.directory, session.directory / "log"))
        await asyncio.sleep(seconds + 1)
    return [outcomes.read(file) for file in files]
