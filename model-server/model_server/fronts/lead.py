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
"""A helper that has said nothing for so long is ended."""
_START_SECONDS: Final = 60.0
"""So is one that isn't ready by then."""
_BACK_OFF_SECONDS: Final = 1.0
_MAX_BACK_OFF_SECONDS: Final = 300.0
"""Before another one, after one that failed: doubled each time."""
_QUICK: Final = 0.9
_SLOW: Final = 0.5
"""Share of the predictions that run on the event loop: at least so many with a quick model, fewer with a slow one."""


@dataclass(eq=False)
class _Helper:
    """Another process, as the first one knows it."""

    process: subprocess.Popen[bytes]
    channel: Channel
    started: float
    heard: float
    ready: bool = False
    open: int = 0
    """Connections, when it last said so."""
    received: int = 0
    """Connections that it had been given by then."""
    given: int = 0
    """Connections that it has been given."""
    had_returned: int = 0
    """Connections that it had given back, when it last said so."""
    returned: int = 0
    """Connections that have come back."""
    asked: int = 0
    """How many it was last told to give back."""
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
        """Those on their way to it included, and without those on their way back."""
        return self.open + (self.given - self.received) - (self.returned - self.had_returned)


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
        self._not_before = 0.0
        self._back_off = _BACK_OFF_SECONDS
        self._hurry = asyncio.Event()
        self._task = asyncio.create_task(self._watch())
        parts.telemetry.others = self._states

    def drain(self) -> None:
        """The server is about to stop: connections are closed after their next answer, by all processes."""
        self._draining = True
        self._stop_giving()
        for helper in self._helpers:
            helper.channel.send({"do": "drain"})

    def hurry(self) -> None:
        """`stop` need not wait any longer."""
        self._hurry.set()

    async def stop(self, seconds: float) -> None:
        """End all helpers; what they are working on has this long."""
        self.drain()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        for helper in self._helpers:
            helper.channel.send({"do": "stop"})
        ended = asyncio.gather(*(helper.ended.wait() for helper in self._helpers))
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((ended, hurried), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        hurried.cancel()
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
            if self._draining:
                continue
            now = time.monotonic()
            try:
                self._end_the_silent(now)
                await self._look(now)
            except Exception as error:
                _log.error("looking after the other front processes failed", exc_info=error)
                self._wait_before_another(now)

    def _end_the_silent(self, now: float) -> None:
        for helper in list(self._helpers):
            slow_start = not helper.ready and now - helper.started > _START_SECONDS
            if slow_start or now - helper.heard > _SILENCE_SECONDS:
                _log.error("another front process says nothing, or doesn't get ready", pid=helper.process.pid)
                helper.process.kill()
                self._gone(helper)

    async def _look(self, now: float) -> None:
        busy, quick = self._own(now)
        ready = [helper for helper in self._helpers if helper.serves]
        if len(ready) == len(self._helpers):  # one change at a time
            seen = Seen(
                now,
                (busy, *(helper.busy for helper in ready)),
                self._parts.server.connections + sum(helper.connections for helper in ready),
                quick,
                now >= self._not_before and memory.left_for_another(),
            )
            self._pressure, action = self._pressure.after(seen, self._limits)
            if action is Action.START:
                await self._start(now)
            elif action is Action.STOP:
                self._dismiss(ready.pop())
        if self._draining:
            return
        if self._undivided and not self.wanted():
            self._divide()
        self._balance(ready)

    def _wait_before_another(self, now: float) -> None:
        self._not_before = now + self._back_off
        self._back_off = min(2 * self._back_off, _MAX_BACK_OFF_SECONDS)

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

    async def _start(self, now: float) -> None:
        """One more process; it gets connections when it has loaded the model. OSError."""
        parts = self._parts
        mine, theirs = pair()
        try:
            process = await _spawned(theirs, parts.environ)
        except BaseException:
            mine.close()
            raise
        finally:
            theirs.close()
        helper: _Helper
        channel = Channel(mine, lambda message, fd: self._heard(helper, message, fd), lambda: self._gone(helper))
        helper = _Helper(process, channel, now, now)
        self._helpers.append(helper)
        slowness = list(parts.executor.slowness.items())
        channel.send({"do": "load", "model": str(parts.model), "digest": parts.digest, "slowness": slowness})
        if self._draining:
            channel.send({"do": "drain"})
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
            helper.returned += 1
            adopt(self._parts.server, fd)
        if "state" in message:
            helper.state = message["state"]
            helper.open, helper.received, helper.busy = message["connections"], message["received"], message["busy"]
            helper.quick, helper.slow = message["quick"], message["slow"]
            helper.had_returned = message["returned"]
        if message.get("is") == "ready":
            helper.ready = True
            self._back_off = _BACK_OFF_SECONDS
            self._divide()

    def _gone(self, helper: _Helper) -> None:
        """A helper has ended, or is about to."""
        if helper not in self._helpers:
            return
        self._helpers.remove(helper)
        helper.channel.close()
        if not (helper.leaving or self._draining):
            _log.warning("another front process has ended", pid=helper.process.pid, ready=helper.ready)
            self._wait_before_another(time.monotonic())
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
        """As many connections for everyone: new and idle ones at once, others between two of their requests."""
        front, server, timeout = self._parts.front, self._parts.server, self._parts.settings.timeout_milliseconds / 1000
        # A process that hangs keeps its probes, so that whoever asks learns of it.
        front.giving = self if ready and not self._parts.dispatcher.hangs(timeout) else None
        front.overfull = front.giving is not None and self.wanted()
        if front.overfull:
            server.give_idle()
        for helper in ready:
            rest = tuple(other.connections for other in ready if other is not helper)
            too_many = fronts.surplus(helper.connections, (server.connections, *rest))
            if too_many != helper.asked and helper.channel.send({"do": "give", "connections": too_many}):
                helper.asked = too_many

    def wanted(self) -> bool:
        """Whether this process has more connections than its share. See rest.front.Giving."""
        others = tuple(helper.connections for helper in self._helpers if helper.serves)
        return bool(others) and fronts.surplus(self._parts.server.connections, others) > 0

    def give(self, fd: int) -> bool:
        """To whom has the fewest. See rest.front.Giving."""
        fewest = min((helper for helper in self._helpers if helper.serves), key=lambda helper: helper.connections)
        given = fewest.channel.send({"do": "serve"}, fd)
        fewest.given += given
        return given


def adopt(server: Server, fd: int) -> None:
    """Serve the connection that `fd` is."""
    task = asyncio.get_running_loop().create_task(server.adopt(socket.socket(fileno=fd)))
    _adopting.add(task)
    task.add_done_callback(_adopting.discard)


_adopting: set[asyncio.Task[Any]] = set()
"""The event loop itself keeps only weak references."""


async def _spawned(end: socket.socket, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A helper that has `end`; none is left over when this is cancelled. OSError."""
    root = Path(__file__).parents[2]
    program = f"import sys; sys.path.append({str(root)!r}); from model_server.fronts.helper import main; main()"
    spawning = asyncio.create_task(
        asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-P", "-c", program, str(end.fileno())],
            env={**os.environ, **environ},
            pass_fds=(end.fileno(),),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the first process
        )
    )
    try:
        return await asyncio.shield(spawning)
    except asyncio.CancelledError:
        process = await spawning
        process.kill()
        _reap(process)
        raise


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def limits(settings: Settings) -> Limits:
    """With what this server has."""
    return Limits(min(settings.concurrency, int(cpus.available())) - 1, settings.front_busy_percent / 100)
