"""W2: more clients than two cores can serve, and what becomes of their requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from statistics import mean
from typing import Final

import numpy as np

from benchmarks.server import clients, outcomes
from benchmarks.server.clients import Load, Talk
from benchmarks.server.models.chain import chain
from benchmarks.server.samples import Sample
from benchmarks.server.session import Question, Running, Session
from benchmarks.server.starting import TIMEOUT_SECONDS, Server
from benchmarks.server.works import limits

WORK: Final = "W2"
CLIENTS: Final = (1, 2, 5, 10, 20, 50)
TIMES_CAPACITY: Final = (2, 10)
_CORES: Final = 2
_DIFFERENT: Final = 8
_LIMIT_SECONDS: Final = 2.5


def again(count: int) -> str:
    """The name of a load of clients that come back 0.1 s after a refusal."""
    return f"{count} clients, again after 0.1 s"


def as_told(count: int) -> str:
    """The name of a load of clients that come back when the server says."""
    return f"{count} clients, again when told"


def arriving(times: int) -> str:
    """The name of a load of requests that arrive whatever becomes of the others."""
    return f"open loop, {times} x capacity"


class Wanted:
    """The answers to the few different seeds that are asked about."""

    def __init__(self, steps: int) -> None:
        self._ends = [chain(seed, steps) for seed in range(_DIFFERENT)]

    def question(self, identity: int) -> Question:
        """A seed and the request's own number, so that no two requests are alike."""
        seed = identity % _DIFFERENT
        return Question(np.array([[seed, identity]], np.int64), np.array([[self._ends[seed], identity]], np.float64))

    def talk(self, running: Running) -> Talk:
        """What clients need."""
        dialect = running.dialect
        return Talk(
            port=running.port,
            question=lambda identity: dialect.message(self.question(identity).x, TIMEOUT_SECONDS),
            right=lambda identity, answer: dialect.matches(answer.body, self.question(identity).wanted, 1e-15),
            timeout_seconds=TIMEOUT_SECONDS,
        )


async def measure(server: Server, session: Session, number: int, capacity: float) -> AsyncIterator[Sample]:
    """Every load, one after the other, on one start of the server; each begins when the last one has left no work.

    `capacity`: the limit at the beginning of the round. A machine's speed changes within minutes by more than what is
    promised of ours, so for ours the limit is measured again after each load, while the server is idle: the two
    beside a load are its limit.
    """
    wanted = Wanted(session.calibration.chain_steps)
    async with session.serving(server, WORK, wanted.question(0)) as running:
        talk = wanted.talk(running)
        await clients.closed(talk, _CORES, 2.0, honour=True)  # warm-up: every worker has predicted
        await running.quiet()
        before = after = capacity
        for name, load in _loads(server, talk, session, capacity, number):
            sample = await _loaded(running, name, load, number)
            if server.kind == "ours":
                yield (limit := await limits.chains(session, number, _LIMIT_SECONDS))
                before, after = after, limit.values["goodput"]
            share = {"of_limit_percent": 100 * sample.values["goodput"] / mean((before, after))}
            yield replace(sample, values={**sample.values, **share})


Apply = Callable[[], Awaitable[Load]]


def _loads(server: Server, talk: Talk, session: Session, capacity: float, number: int) -> list[tuple[str, Apply]]:
    """Only ours says when to come back, so only ours is asked by clients who do as told."""
    seconds = session.seconds + outcomes.RAMP_SECONDS
    found: list[tuple[str, Apply]] = []
    for honour in (False, True) if server.kind == "ours" else (False,):
        for count in CLIENTS:
            name = as_told(count) if honour else again(count)
            found.append((name, lambda c=count, h=honour: clients.closed(talk, c, seconds, honour=h)))  # type: ignore[misc]
    for times in TIMES_CAPACITY:
        rate = times * capacity
        found.append((arriving(times), lambda r=rate: clients.open_loop(talk, r, seconds, number)))  # type: ignore[misc]
    return found


async def _loaded(running: Running, name: str, load: Apply, number: int) -> Sample:
    before = running.tree.weigh().rss
    offset = len(outcomes.read(running.predictions))
    done = await load()
    after = running.tree.weigh().rss
    cpu_after = await running.quiet()
    predictions = outcomes.read(running.predictions)[offset:]
    values = outcomes.values(done, predictions, cpu_after) | {"rss_mib": after, "rss_growth_mib": after - before}
    return Sample(WORK, running.server.name, name, number, values, outcomes.details(done))
