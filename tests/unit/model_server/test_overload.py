"""More clients than the model can serve, in fake time: what each gets, and that the model is never idle for it."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, field

import numpy as np
import pytest

from model_server.decide.batch_plan import Limits
from model_server.dispatcher import Dispatcher
from model_server.errors import Code, Problem
from model_server.executor import Done, Outcome
from model_server.models.tensors import Tensors
from model_server.queues import Priority
from model_server.telemetry import Telemetry

SERVICE = 0.1
SLOTS = 2
CAPACITY = SLOTS / SERVICE
TIMEOUT = 2.0


class Model:
    """Every prediction takes SERVICE seconds."""

    slots = SLOTS

    def __init__(self) -> None:
        self.made = 0

    def submit(self, inputs: Tensors, done: Done) -> None:
        """See Executor."""
        self.made += 1
        asyncio.get_running_loop().call_later(SERVICE, done, Outcome(inputs, None, SERVICE))

    def stop(self) -> None:
        """See Executor."""


@dataclass
class Client:
    """Asks, and asks again at once; after a refusal when told, or after `retry` seconds."""

    dispatcher: Dispatcher
    retry: float | None
    answers: list[float] = field(default_factory=list)
    """Seconds that each took."""
    refusals: int = 0
    failures: int = 0

    async def run(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            started = loop.time()
            try:
                await self._ask(started + TIMEOUT)
                self.answers.append(loop.time() - started)
            except Problem as problem:
                if problem.code is not Code.QUEUE_FULL:
                    self.failures += 1
                    continue
                self.refusals += 1
                assert loop.time() == started, "a refusal comes at once"
                await asyncio.sleep(self.retry or (problem.retry_after_ms or 0) / 1000)

    async def _ask(self, deadline: float) -> None:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(outputs: Tensors | None, error: BaseException | None) -> None:
            answer.set_result(None) if outputs is not None else answer.set_exception(error or ValueError())

        self.dispatcher.enter({"x": np.zeros(1)}, deadline, Priority.NORMAL, done)
        await answer


@pytest.mark.looptime
@pytest.mark.parametrize("retry", [None, 0.1], ids=["back when told", "back after 0.1 s"])
@pytest.mark.parametrize("count", [2, 5, 10, 20, 50, 200])
async def test_the_model_is_never_idle_and_nobody_waits_in_vain(count: int, retry: float | None) -> None:
    model, seconds = Model(), 60
    dispatcher = Dispatcher(model, 8, Telemetry(), patience=TIMEOUT)
    clients = [Client(dispatcher, retry) for _ in range(count)]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run(seconds))
    answers = [took for client in clients for took in client.answers]
    assert len(answers) >= 0.95 * CAPACITY * seconds
    assert sum(client.failures for client in clients) == 0
    assert model.made == len(answers), "nothing was computed for nobody"
    assert statistics.median(answers) <= 0.6
    if count <= 50:  # with more, ten times what can be served and beyond, some are unlucky for a minute
        assert all(client.answers for client in clients)


@pytest.mark.looptime
async def test_when_the_load_is_gone_those_who_were_refused_are_served_soon() -> None:
    dispatcher = Dispatcher(Model(), 8, Telemetry(), patience=TIMEOUT)
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(Client(dispatcher, None).run(30)) for _ in range(50)]
        lone = Client(dispatcher, None)
        group.create_task(lone.run(36))
        await asyncio.wait(clients)
    assert len(lone.answers) >= 10


class BatchModel(Model):
    """A prediction takes 11 ms and 0.04 ms a row."""

    def submit(self, inputs: Tensors, done: Done) -> None:
        """See Executor."""
        self.made += 1
        seconds = 0.011 + 0.00004 * len(inputs["x"])
        asyncio.get_running_loop().call_later(seconds, done, Outcome(inputs, None, seconds))


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("count", "per_second"),
    [
        pytest.param(1, 89, id="a lone client is answered as quickly as the model can"),
        pytest.param(8, 650, id="a few: those that wait when a slot comes free would make 540"),
        pytest.param(64, 3900, id="a crowd: those that wait would make 3,500, the first to come back alone 2,800"),
    ],
)
async def test_batches_are_as_large_as_the_crowd_makes_them(count: int, per_second: int) -> None:
    """The server needs 0.1 ms for each request, one after the other, so that a crowd is back within milliseconds."""
    loop, seconds = asyncio.get_running_loop(), 5.0
    dispatcher = Dispatcher(BatchModel(), 64, Telemetry(), Limits(64))
    answers, free_at = 0, 0.0

    def ask() -> asyncio.Future[None]:
        answer: asyncio.Future[None] = loop.create_future()
        row = {"x": np.zeros((1, 1))}
        dispatcher.enter(row, loop.time() + TIMEOUT, Priority.NORMAL, lambda *_: answer.set_result(None))
        return answer

    async def client() -> None:
        nonlocal answers, free_at
        while loop.time() < seconds:
            free_at = max(free_at, loop.time()) + 0.0001
            await asyncio.sleep(free_at - loop.time())
            await ask()
            answers += 1

    await asyncio.gather(*(client() for _ in range(count)))
    assert answers / seconds >= per_second
