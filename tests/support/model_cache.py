"""A cache over a queue over an executor under the test's control, and what is asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from model_server.cache.caching import Caching
from model_server.cache.control import Use
from model_server.cache.keys import Keys
from model_server.cache.shared import Found
from model_server.cache.store import Kept, own
from model_server.dispatcher import Dispatcher
from model_server.errors import Problem
from model_server.models.tensors import Tensors
from model_server.queues import Priority, Ticket
from model_server.telemetry import Telemetry
from model_serving import ManualExecutor

TTL = 10.0


class Asked:
    """A request for `value`, and everything that was answered to it."""

    def __init__(self, bench: CacheBench, value: float, deadline: float, priority: Priority, header: str) -> None:
        self.value = value
        self.answers: list[float | BaseException] = []
        self.left = False
        self.ticket: Ticket | None = None
        self.use = Use.asked(header.encode())
        self._caching = bench.caching
        inputs = {"x": np.array([[value]], np.float32)}
        try:
            self.ticket = bench.caching.enter(inputs, deadline, priority, self._done, self.use)
        except Problem as problem:
            self.answers.append(problem)

    def _done(self, outputs: Tensors | None, error: BaseException | None) -> None:
        assert not self.left, "nobody is answered who has left"
        if outputs is None:
            assert error is not None
            self.answers.append(error)
        else:
            self.answers.append(float(outputs["x"][0, 0]))

    def leave(self) -> None:
        """The client goes away; only for one that hasn't been answered."""
        assert self.ticket is not None
        self.left = True
        self._caching.leave(self.ticket)

    @property
    def answer(self) -> Any:
        """The one answer: its value, or the error; None: not yet."""
        assert len(self.answers) <= 1, "answered twice"
        return self.answers[0] if self.answers else None

    @property
    def result(self) -> str | None:
        """hit, miss, ..."""
        return self.use.result and self.use.result.value


class FakeShared:
    """A shared level that answers when the test says so."""

    def __init__(self) -> None:
        self.up = True
        self.asked: dict[bytes, Callable[[Found | None], None]] = {}
        self.put_there: dict[bytes, Kept] = {}
        self.cancelled = 0

    def look_up(self, key: bytes, found: Callable[[Found | None], None]) -> FakeShared | None:
        """See Shared."""
        if not self.up:
            return None
        self.asked[key] = found
        return self

    def cancel(self) -> None:
        """See flight.Lookup."""
        self.cancelled += 1

    def put(self, key: bytes, kept: Kept) -> None:
        """See Shared."""
        self.put_there[key] = kept

    def answer(self, value: float | None = None, remaining: float = TTL) -> None:
        """To the oldest question."""
        found = self.asked.pop(next(iter(self.asked)))
        kept = own({"x": np.array([[value]], np.float32)})
        assert kept is not None
        found(None if value is None else Found(kept, remaining))


class CacheBench:
    """A Caching with everything around it, on the running loop."""

    def __init__(self, slots: int = 1, max_queue: int = 2, max_bytes: int = 10**6, shared: Any = None) -> None:
        self.executor = ManualExecutor(slots)
        self.telemetry = Telemetry()
        self.dispatcher = Dispatcher(self.executor, max_queue, self.telemetry)
        keys = Keys("ab" * 32, "digits")
        self.caching = Caching(
            self.dispatcher, keys, max_bytes=max_bytes, ttl=TTL, telemetry=self.telemetry, shared=shared
        )

    def ask(
        self, value: float = 1, seconds: float = 60, priority: Priority = Priority.NORMAL, header: str = ""
    ) -> Asked:
        """A request for `value`, with that Cache-Control."""
        return Asked(self, value, asyncio.get_running_loop().time() + seconds, priority, header)

    def finish(self, error: BaseException | None = None) -> None:
        """End the oldest prediction."""
        self.executor.finish(error=error)

    @property
    def running(self) -> list[float]:
        """What the model is working on."""
        return [float(inputs["x"][0, 0]) for inputs, _ in self.executor.pending]

    def value(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.telemetry.registry.get_sample_value(f"inflight_server_{name}", labels) or 0.0

    @property
    def counts(self) -> tuple[float, float]:
        """In flight, queued."""
        return self.value("requests_in_flight"), self.value("queue_depth")
