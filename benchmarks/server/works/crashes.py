"""The crash mix: workers killed by what they compute, clients that leave, poisoned rows, beside healthy requests."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Final

import numpy as np

from benchmarks.server import clients, wire
from benchmarks.server.clients import End, Load, Talk
from benchmarks.server.models.fragile import DEADLY, HEALTHY, POISON
from benchmarks.server.samples import Sample
from benchmarks.server.session import Question, Running, Session
from benchmarks.server.starting import Server
from benchmarks.server.wire import Connection

WORK: Final = "crash"
MIX: Final = "kills, aborts, poison"
KILLS, ABORTS, POISONED = 100, 1000, 100
"""In ten minutes."""
_MIX_SECONDS: Final = 600.0
_CLIENTS: Final = 16
_PATIENCE: Final = 10.0
_STAYS_SECONDS: Final = 0.02
_GAUGE: Final = b"inflight_server_requests_in_flight"


def question(identity: int) -> Question:
    """A healthy row."""
    value = identity % 1000
    return Question(np.array([[HEALTHY, value]], np.float32), np.array([[2 * value + 1]], np.float32))


@dataclass
class Chaos:
    """What became of the requests that were meant to fail."""

    statuses: dict[int, Counter[str]] = field(default_factory=lambda: {DEADLY: Counter(), POISON: Counter()})
    aborted: int = 0


async def measure(server: Server, session: Session, number: int) -> AsyncIterator[Sample]:
    """One start; as much of the ten minutes' mix as `session.mix_seconds` have room for, then a soak without it."""
    async with session.serving(server, WORK, question(1)) as running:
        dialect = running.dialect
        talk = Talk(
            running.port,
            question=lambda identity: dialect.message(question(identity).x),
            right=lambda identity, answer: dialect.matches(answer.body, question(identity).wanted),
            timeout_seconds=_PATIENCE,
        )
        chaos, memory = Chaos(), _Memory(running)
        soak = session.soak_seconds if server.kind == "ours" else session.mix_seconds
        watching = asyncio.create_task(memory.watch())
        stirring = asyncio.create_task(_stir(running, chaos, session.mix_seconds, number))
        try:
            load = await clients.closed(talk, _CLIENTS, soak, honour=True)
            await stirring
        finally:
            stirring.cancel()
            watching.cancel()
            await asyncio.gather(stirring, watching, return_exceptions=True)
        await asyncio.sleep(1.0)
        values = _values(load, chaos) | memory.growth(session.mix_seconds / 2)
        if server.kind == "ours":
            values["gauge_after"] = await _gauge(running)
        yield Sample(WORK, server.name, MIX, number, values, _notes(load, chaos))


async def _stir(running: Running, chaos: Chaos, seconds: float, seed: int) -> None:
    """Each misdeed at random times, as many in all as belong into the time."""
    chance = random.Random(seed)  # noqa: S311 (not for secrets)
    share = seconds / _MIX_SECONDS
    deeds: tuple[tuple[int, Callable[[], Coroutine[None, None, None]]], ...] = (
        (KILLS, partial(_meant_to_fail, running, chaos, DEADLY)),
        (POISONED, partial(_meant_to_fail, running, chaos, POISON)),
        (ABORTS, partial(_abort, running, chaos, chance)),
    )
    todo = [
        (chance.uniform(0, 0.95 * seconds), deed) for count, deed in deeds for _ in range(max(1, round(count * share)))
    ]
    start = clients.now()
    tasks = []
    for at, deed in sorted(todo, key=lambda entry: entry[0]):
        await asyncio.sleep(max(0.0, start + at - clients.now()))
        tasks.append(asyncio.create_task(deed()))
    await asyncio.gather(*tasks)


async def _meant_to_fail(running: Running, chaos: Chaos, kind: int) -> None:
    """Refusals are told apart: a refused request has harmed nobody."""
    connection = Connection()
    try:
        async with asyncio.timeout(_PATIENCE):
            await connection.connect(running.port)
            answer = await connection.ask(running.dialect.message(np.array([[kind, 0]], np.float32)))
        chaos.statuses[kind][str(answer.status)] += 1
    except TimeoutError:
        chaos.statuses[kind]["timeout"] += 1
    except OSError:
        chaos.statuses[kind]["closed"] += 1
    finally:
        connection.abort()


async def _abort(running: Running, chaos: Chaos, chance: random.Random) -> None:
    connection = Connection()
    try:
        await connection.connect(running.port)
        asking = asyncio.create_task(connection.ask(running.dialect.message(question(7).x)))
        await asyncio.wait([asking], timeout=chance.uniform(0, _STAYS_SECONDS))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        chaos.aborted += 1
    except OSError:
        pass
    finally:
        connection.abort()


class _Memory:
    """RSS of the whole tree, once a second; medians, as a worker that is being replaced is missing for a moment."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._seen: list[tuple[float, float]] = []

    async def watch(self) -> None:
        """For ever."""
        start = clients.now()
        while True:
            self._seen.append((clients.now() - start, self._running.tree.weigh().rss))
            await asyncio.sleep(1.0)

    def growth(self, since: float) -> dict[str, float]:
        """From the tenth of the time after `since` to the last tenth."""
        whole = self._seen[-1][0]
        first = [rss for at, rss in self._seen if since <= at <= since + whole / 10]
        last = [rss for at, rss in self._seen if at >= whole - whole / 10]
        return {"rss_growth_mib": median(last) - median(first), "rss_mib": median(last)}


def _values(load: Load, chaos: Chaos) -> dict[str, float]:
    kinds = Counter(tried.end for tried in load.tried)
    ends = sorted(tried.ended for tried in load.tried if tried.end is End.ANSWER)
    gaps = [after - before for before, after in pairwise(ends)]
    deadly, poison = chaos.statuses[DEADLY], chaos.statuses[POISON]
    return {
        "healthy": len(load.tried),
        "healthy_failed": kinds[End.ERROR] + kinds[End.TIMEOUT] + kinds[End.WRONG],
        "healthy_refused": kinds[End.REFUSAL],
        "kills": sum(deadly.values()),
        "kills_typed": sum(count for status, count in deadly.items() if status in ("500", "502")),
        "poisoned": sum(poison.values()),
        "poison_typed": sum(count for status, count in poison.items() if status in ("400", "422")),
        "aborted": chaos.aborted,
        "longest_silence_seconds": max(gaps, default=float("inf")),
        "goodput": len(ends) / (load.ended - load.started),
    }


def _notes(load: Load, chaos: Chaos) -> tuple[str, ...]:
    failed = Counter(
        f"healthy: {t.end} {t.detail}".strip() for t in load.tried if t.end not in (End.ANSWER, End.REFUSAL)
    )
    named = {DEADLY: "deadly", POISON: "poison"}
    meant = [f"{named[kind]}: {s} x {count}" for kind, found in chaos.statuses.items() for s, count in found.items()]
    return (*(f"{what} x {count}" for what, count in failed.most_common(5)), *meant)


async def _gauge(running: Running) -> float:
    """Requests in flight as the server's own metrics say, when nobody asks any more."""
    connection = Connection()
    try:
        await connection.connect(running.metrics_port)
        body = (await connection.ask(wire.request("GET", "/metrics"))).body
    finally:
        connection.abort()
    line = next(line for line in body.splitlines() if line.startswith(_GAUGE))
    return float(line.split()[-1])
