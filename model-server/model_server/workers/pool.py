"""The front's side of the workers: an Executor whose predictions run in supervised processes.

Each worker has at most one prediction. A worker that dies, hangs past the limit or talks nonsense costs the prediction
on it, which ends with Problem(worker_lost), and is replaced at once; those that keep dying, after longer and longer
pauses. Everything happens on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from model_server.errors import Code, LoadFailure, Problem, Reason
from model_server.executor import Done, Outcome
from model_server.models.base import Metadata
from model_server.models.tensors import Tensors
from model_server.workers import channel as channels
from model_server.workers.channel import Channel, arrays
from model_server.workers.supervisor import ModelFiles, Supervisor
from model_server.workers.wire import WireError
from model_server.workers.worker import Recycling

_log = structlog.get_logger()

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 30.0
_GIVE_UP_PAUSE: Final = 2.0
"""With pauses longer than this and no worker left, requests aren't kept waiting for one."""
_START_SECONDS: Final = 600.0


class ModelError(Exception):
    """What a model raised in a worker; the text of its traceback comes with it."""

    def __init__(self, told: str, trace: str) -> None:
        super().__init__(told)
        self.trace = trace

    def __str__(self) -> str:
        """As it was raised, with where."""
        return f"{self.args[0]}\n{self.trace}" if self.trace else str(self.args[0])


@dataclass(slots=True, eq=False)
class _Job:
    inputs: Tensors
    done: Done


class _Worker:
    """One process, and what it is doing."""

    def __init__(self, number: int, channel: Channel) -> None:
        self.number = number
        self.channel = channel
        self.pidfd: int | None = None
        self.ready = False
        self.served = 0
        self.job: _Job | None = None
        self.limit: asyncio.TimerHandle | None = None

    def received(self) -> tuple[dict[str, Any], memoryview] | None:
        """A message, or None when the process has ended."""
        try:
            return self.channel.receive()
        except ConnectionError:
            return None

    def kill(self) -> None:
        """End it now, whatever it does."""
        if self.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Forget it."""
        self.channel.close()
        if self.limit is not None:
            self.limit.cancel()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None


class WorkerPool:
    """An Executor of `slots` worker processes. `start` it before use, `stop` it at the end."""

    def __init__(self, slots: int, limit_seconds: float, lost: Callable[[], None], recycling: Recycling) -> None:
        """`limit_seconds`: a prediction that takes longer hangs; `lost()` is called for every worker replaced."""
        self._loop = asyncio.get_running_loop()
        self.slots = slots
        self._limit = limit_seconds
        self._lost = lost
        self._recycling = recycling
        self._supervisor: Supervisor
        self._workers: dict[int, _Worker] = {}
        self._idle: deque[_Worker] = deque()
        self._jobs: deque[_Job] = deque()
        """Submitted while no worker was free: only while lost ones are replaced."""
        self._failures = 0
        """Workers in a row that were lost before they had answered anything."""
        self._stopped = False
        self._warm: asyncio.Future[str] = self._loop.create_future()

    async def start(self, files: ModelFiles) -> Metadata:
        """Load the model and start the workers; warm when this returns. LoadFailure says why not."""
        self._supervisor = Supervisor(files, self._recycling, self._born, self._ended)
        metadata = await self._supervisor.start()
        for _ in range(self.slots):
            self._spawn()
        async with asyncio.timeout(_START_SECONDS):
            outcome = await self._warm
        _log.info("workers ready", workers=self.slots, forked=self._supervisor.forks, warm_up=outcome)
        return metadata

    def submit(self, inputs: Tensors, done: Done) -> None:
        """See Executor."""
        job = _Job(inputs, done)
        if self._idle:
            self._give(self._idle.popleft(), job)
        elif self._crash_looping:
            self._loop.call_soon(done, _lost_outcome("the model's processes keep ending; see the server's log"))
        else:
            self._jobs.append(job)

    def stop(self) -> None:
        """End every process at once: whoever stops has drained before."""
        self._stopped = True
        for worker in list(self._workers.values()):
            worker.kill()
            self._forget(worker)
        self._supervisor.stop()

    @property
    def _crash_looping(self) -> bool:
        return not self._workers and self._pause > _GIVE_UP_PAUSE

    @property
    def _pause(self) -> float:
        """Seconds before a lost worker is replaced."""
        return min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._failures) if self._failures > 1 else 0.0

    def _spawn(self) -> None:
        if self._stopped or len(self._workers) >= self.slots:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        requests, answers = channels.new_file("inflight-requests"), channels.new_file("inflight-answers")
        number = self._supervisor.order(theirs.detach(), requests, answers)
        worker = _Worker(number, Channel(ours, requests, answers))
        self._workers[number] = worker
        self._loop.add_reader(ours, self._readable, worker)

    def _born(self, number: int, pid: int) -> None:
        worker = self._workers.get(number)
        if worker is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return
        with contextlib.suppress(ProcessLookupError):
            worker.pidfd = os.pidfd_open(pid)

    def _ended(self, number: int, how: str) -> None:
        """The supervisor knows how a process ended; that it did, its socket says too, perhaps sooner."""
        worker = self._workers.get(number)
        if worker is None:  # its socket told first, or it has made way for another
            _log.info("a worker process ended", worker=number, how=how)
        else:
            _log.warning("a worker process ended", worker=number, how=how)
            self._lose(worker, f"the model's process ended ({how})")

    def _readable(self, worker: _Worker) -> None:
        try:
            received = worker.received()
            if received is None:
                self._lose(worker, "the model's process ended")
                return
            message, memory = received
            if not worker.ready:
                self._got_ready(worker, str(message["ready"]))
            else:
                self._answered(worker, _outcome(message, memory), leaving=bool(message["leaving"]))
        except BlockingIOError:
            return
        except (WireError, KeyError, TypeError, ValueError, OSError) as error:
            _log.error("a worker process sent nonsense", worker=worker.number, error=repr(error)[:300])
            self._lose(worker, "the model's process talked nonsense")

    def _got_ready(self, worker: _Worker, outcome: str) -> None:
        worker.ready = True
        self._free(worker)
        if not self._warm.done() and all(each.ready for each in self._workers.values()):
            self._warm.set_result(outcome)

    def _answered(self, worker: _Worker, outcome: Outcome, *, leaving: bool) -> None:
        job, worker.job = worker.job, None
        if job is None:
            raise WireError("an answer nobody asked for")
        if worker.limit is not None:
            worker.limit.cancel()
        worker.served += 1
        self._failures = 0
        if leaving:
            self._forget(worker)
            self._spawn()
        else:
            self._free(worker)
        job.done(outcome)

    def _free(self, worker: _Worker) -> None:
        if self._jobs:
            self._give(worker, self._jobs.popleft())
        else:
            self._idle.append(worker)

    def _give(self, worker: _Worker, job: _Job) -> None:
        worker.job = job
        worker.limit = self._loop.call_later(self._limit, self._hung, worker)
        try:
            worker.channel.send({}, job.inputs)
        except OSError:  # it ended; the loop hasn't seen it yet
            self._lose(worker, "the model's process ended")
        except TypeError as error:
            worker.limit.cancel()
            worker.job = None
            self._free(worker)
            job.done(Outcome(None, Problem(Code.BAD_INPUT, str(error)), 0.0))

    def _hung(self, worker: _Worker) -> None:
        _log.error("a worker process hangs: it is ended", worker=worker.number, seconds=self._limit)
        worker.kill()
        self._lose(worker, "the model took far longer than any request may")

    def _lose(self, worker: _Worker, why: str) -> None:
        """`worker` is of no use any more: fail what it was working on, and replace it."""
        if self._workers.get(worker.number) is not worker:
            return
        worker.kill()
        self._forget(worker)
        self._lost()
        self._failures = 0 if worker.served else self._failures + 1
        if not self._warm.done() and self._failures > self.slots:
            self._warm.set_exception(LoadFailure(Reason.LOAD_FAILED, f"{why} before it had answered anything"))
        if self._pause:
            _log.warning("workers end before they answer anything", pause_seconds=self._pause)
        self._loop.call_later(self._pause, self._spawn)
        if worker.job is not None:
            job, worker.job = worker.job, None
            job.done(_lost_outcome(why))
        while self._crash_looping and self._jobs:
            self._jobs.popleft().done(_lost_outcome(why))

    def _forget(self, worker: _Worker) -> None:
        del self._workers[worker.number]
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)
        self._loop.remove_reader(worker.channel.fileno())
        worker.close()
        self._supervisor.release(worker.number)


def _outcome(message: dict[str, object], memory: memoryview) -> Outcome:
    """WireError, KeyError, TypeError, ValueError for what no worker of ours would send."""
    seconds = float(message["seconds"])  # type: ignore[arg-type]
    if "problem" in message:
        return Outcome(None, Problem(Code.BAD_INPUT, str(message["problem"])[:2000]), seconds)
    if "error" in message:
        return Outcome(None, ModelError(str(message["error"]), str(message.get("trace", ""))), seconds)
    return Outcome(arrays(message, memory, copy=True), None, seconds)


def _lost_outcome(why: str) -> Outcome:
    return Outcome(None, Problem(Code.WORKER_LOST, f"{why} while it worked on this request"), 0.0)
