"""The first process's side: when there are helpers, which connections they get, and what they have counted."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from model_server import cpus, memory
from model_server.decide import fronts
from model_server.decide.fronts import Action, Limits, Seen
from model_server.dispatcher import Dispatcher
from model_server.executor import QuickExecutor
from model_server.fronts.channel import Channel, Message, pair
from model_server.rest.front import Front
from model_server.rest.http_server import Server
from model_server.settings import Settings
from model_server.telemetry import State, Telemetry

_log = structlog.get_logger()

TICK_SECONDS: Final = 0.25
_SILENCE_SECONDS: Final = 10.0
"""A helper that has said nothing for so long is ended; one that starts has more."""
_START_SECONDS: Final = 60.0
_QUICK: Final = 0.9
_SLOW: Final = 0.5
"""Share of the predictions that run on the event loop: at least so many with a quick model, fewer with a slow one."""


@dataclass(eq=False)
class _Helper:
    """Another process, as the first one knows it."""

    process: subprocess.Popen[bytes]
    channel: Channel
    heard: float
    ready: bool = False
    open: int = 0
    """Connections, when it last said so."""
    received: int = 0
    """Connections that it had been given by then."""
    given: int = 0
    """Connections that it has been given."""
    busy: float = 0.0
    quick: int = 0
    slow: int = 0
    state: State | None = None
    leaving: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def serves(self) -> bool:
        """Whether it may be given connections."""
        return self.ready and not self.leaving

    @property
    def connections(self) -> int:
        """Those on their way to it included."""
        return self.open + self.given - self.received


@dataclass(frozen=True)
class Parts:
    """Those of the first process that are shared out."""

    settings: Settings
    environ: Mapping[str, str]
    """The settings as variables, for the helpers."""
    model: Path
    digest: str
    executor: QuickExecutor
    dispatcher: Dispatcher
    server: Server
    front: Front
    telemetry: Telemetry


class Fronts:
    """Starts and stops helpers, and keeps connections balanced; on the running event loop."""

    def __init__(self, parts: Parts, limits: Limits) -> None:
        self._parts = parts
        self._limits = limits
        self._helpers: list[_Helper] = []
        self._pressure = fronts.CALM
        self._counted = (time.monotonic(), time.thread_time(), 0, 0)
        self._draining = False
        self._undivided = False
        self._task = asyncio.create_task(self._watch())
        parts.telemetry.others = self._states

    def drain(self) -> None:
        """The server is about to stop: connections are closed after their next answer, by all processes."""
        self._draining = True
        self._stop_giving()
        for helper in self._helpers:
            helper.channel.send({"do": "drain"})

    async def stop(self, seconds: float) -> None:
        """End all helpers; what they are working on has this long."""
        self._task.cancel()
        self._stop_giving()
        for helper in self._helpers:
            helper.channel.send({"do": "stop"})
        ends = [asyncio.create_task(helper.ended.wait()) for helper in self._helpers]
        if ends:
            await asyncio.wait(ends, timeout=seconds)
        for helper in list(self._helpers):
            helper.process.kill()
            self._gone(helper)

    def _stop_giving(self) -> None:
        self._parts.front.giving, self._parts.front.overfull = None, False

    def _states(self) -> Iterable[State]:
        return [helper.state for helper in self._helpers if helper.state is not None]

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            for helper in list(self._helpers):
                if now - helper.heard > (_SILENCE_SECONDS if helper.ready else _START_SECONDS):
                    _log.error("another front process says nothing: it is ended", pid=helper.process.pid)
                    helper.process.kill()
                    self._gone(helper)
            if not self._draining:
                await self._look(now)

    async def _look(self, now: float) -> None:
        busy, quick = self._own(now)
        ready = [helper for helper in self._helpers if helper.serves]
        if len(ready) == len(self._helpers):  # one change at a time
            seen = Seen(
                now,
                (busy, *(helper.busy for helper in ready)),
                self._parts.server.connections + sum(helper.connections for helper in ready),
                quick,
                memory.left_for_another(),
            )
            self._pressure, action = self._pressure.after(seen, self._limits)
            if action is Action.START:
                await self._start()
            elif action is Action.STOP:
                self._dismiss(ready.pop())
        if self._undivided and not self.wanted():
            self._divide()
        self._balance(ready)

    def _own(self, now: float) -> tuple[float, bool | None]:
        """(share of the time that this loop computed, whether the model is quick) since the last look."""
        executor = self._parts.executor
        quick = executor.quick + sum(helper.quick for helper in self._helpers)
        slow = executor.slow + sum(helper.slow for helper in self._helpers)
        then, computed, were_quick, were_slow = self._counted
        self._counted = (now, time.thread_time(), quick, slow)
        ran = quick - were_quick + slow - were_slow
        share = (self._counted[1] - computed) / max(now - then, 1e-6)
        of_quick = (quick - were_quick) / ran if ran > 0 else (_QUICK + _SLOW) / 2
        return share, True if of_quick >= _QUICK else False if of_quick < _SLOW else None

    async def _start(self) -> None:
        """One more process; it gets connections when it has loaded the model."""
        mine, theirs = pair()
        parts = self._parts
        with theirs:
            process = await asyncio.to_thread(_spawned, theirs.fileno(), parts.environ)
        helper: _Helper
        channel = Channel(mine, lambda message, fd: self._heard(helper, message, fd), lambda: self._gone(helper))
        helper = _Helper(process, channel, time.monotonic())
        self._helpers.append(helper)
        slowness = list(parts.executor.slowness.items())
        channel.send({"do": "load", "model": str(parts.model), "digest": parts.digest, "slowness": slowness})
        _log.info("another front process starts", pid=process.pid, processes=1 + len(self._helpers))

    def _dismiss(self, helper: _Helper) -> None:
        """It gives its connections back and ends."""
        _log.info("a front process is not needed any more", pid=helper.process.pid)
        helper.leaving = True
        helper.channel.send({"do": "leave"})
        self._divide()

    def _heard(self, helper: _Helper, message: Message, fd: int | None) -> None:
        helper.heard = time.monotonic()
        if fd is not None:
            adopt(self._parts.server, fd)
        if "state" in message:
            helper.state = message["state"]
            helper.open, helper.received, helper.busy = message["connections"], message["received"], message["busy"]
            helper.quick, helper.slow = message["quick"], message["slow"]
        if message.get("is") == "ready":
            helper.ready = True
            self._divide()

    def _gone(self, helper: _Helper) -> None:
        """A helper has ended, or is about to."""
        if helper not in self._helpers:
            return
        self._helpers.remove(helper)
        helper.channel.close()
        if helper.state is not None:
            self._parts.telemetry.add(helper.state)
        self._divide()
        helper.ended.set()
        asyncio.get_running_loop().run_in_executor(None, _reap, helper.process)

    def _divide(self) -> None:
        """Slots and queue among the processes that serve."""
        serving = [helper for helper in self._helpers if helper.serves]
        slots, queue, parts = self._parts.settings.concurrency, self._parts.settings.max_queue, 1 + len(serving)
        for index, helper in enumerate(serving, 1):
            sizes = {"slots": fronts.share(slots, parts, index), "max_queue": fronts.share(queue, parts, index)}
            helper.channel.send({"do": "resize", **sizes})
        # Not before the connections are shared: their requests are here until then.
        self._undivided = bool(serving) and self.wanted()
        if self._undivided:
            parts = 1
        self._parts.dispatcher.resize(fronts.share(slots, parts, 0), fronts.share(queue, parts, 0))

    def _balance(self, ready: list[_Helper]) -> None:
        """As many connections for everyone: new ones at once, others between two of their requests."""
        front, own = self._parts.front, self._parts.server.connections
        front.giving = self if ready else None
        front.overfull = bool(ready) and self.wanted()
        for helper in ready:
            rest = tuple(other.connections for other in ready if other is not helper)
            if too_many := fronts.surplus(helper.connections, (own, *rest)):
                helper.channel.send({"do": "give", "connections": too_many})

    def wanted(self) -> bool:
        """Whether this process has more connections than its share. See rest.front.Giving."""
        others = tuple(helper.connections for helper in self._helpers if helper.serves)
        return bool(others) and fronts.surplus(self._parts.server.connections, others) > 0

    def give(self, fd: int) -> bool:
        """To whom has the fewest. See rest.front.Giving."""
        fewest = min((helper for helper in self._helpers if helper.serves), key=lambda helper: helper.connections)
        given = fewest.channel.send({"do": "serve"}, fd)
        fewest.given += given
        if not given or fronts.surplus(self._parts.server.connections - 1, (fewest.connections,)) == 0:
            self._parts.front.overfull = False  # until the next look
        return given


def adopt(server: Server, fd: int) -> None:
    """Serve the connection that `fd` is."""
    task = asyncio.get_running_loop().create_task(server.adopt(socket.socket(fileno=fd)))
    _adopting.add(task)
    task.add_done_callback(_adopting.discard)


_adopting: set[asyncio.Task[Any]] = set()
"""The event loop itself keeps only weak references."""


def _spawned(fd: int, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "model_server.fronts.helper", str(fd)]
    return subprocess.Popen(command, env={**os.environ, **environ}, pass_fds=(fd,), stdin=subprocess.DEVNULL)


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def limits(settings: Settings) -> Limits:
    """With what this server has."""
    return Limits(min(settings.concurrency, int(cpus.available())) - 1, settings.front_busy_percent / 100)
