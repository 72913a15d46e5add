"""The front's side of the workers: an Executor whose predictions run in supervised processes.

    pool = WorkerPool(slots=2, limit_seconds=11, lost=telemetry.worker_restarts.inc, recycling=Recycling())
    metadata = await pool.start(ModelFiles(...))  # LoadFailure says why not; `stop` it all the same
    pool.submit(inputs, done)                     # one prediction a worker
    pool.stop()

Each worker has at most one prediction. A worker that ends, hangs past the limit or talks nonsense costs the prediction
on it, which ends with Problem(worker_lost), and is replaced at once; when nothing works in between, after pauses that
double. Everything happens on the event loop of the main thread; nothing blocks it.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from model_server import logs, memory
from model_server.decide import eviction
from model_server.errors import Code, LoadFailure, Problem, Reason
from model_server.executor import Done, Outcome
from model_server.models.base import Metadata
from model_server.models.tensors import Tensors
from model_server.workers import answers, process
from model_server.workers.backoff import Backoff
from model_server.workers.channel import Channel, new_file
from model_server.workers.process import Child
from model_server.workers.supervisor import ModelFiles, NoWorkerError, Supervisor
from model_server.workers.wire import UnsendableError, WireError
from model_server.workers.worker import Recycling

_log = structlog.get_logger()

_START_SECONDS: Final = 30.0
"""From a worker's birth until it says that it is ready; the model is loaded by then."""
_GIVE_UP_PAUSE: Final = 2.0
"""With pauses longer than this and no worker left, requests aren't kept waiting for one."""
_HUNG: Final = "the model took far longer than any request may"
_TOOK_TOO_MUCH: Final = "the container was nearly out of memory, and the model's process had taken {:.0f} MiB more"
_LOOK_SECONDS: Final = 0.05
"""At the container's memory: how far it may fill in between is what `decide.eviction` leaves room for."""
_STOP_SECONDS: Final = 2.0
_ENDING_SECONDS: Final = 0.5
"""From the end of a worker's socket to its own."""


@dataclass(slots=True, eq=False)
class _Job:
    inputs: Tensors
    done: Done
    request_id: str
    """What is logged meanwhile has this id; empty for a batch."""
    limit: asyncio.TimerHandle | None = None
    started: float = 0.0

    def end(self, outcome: Outcome) -> None:
        if self.limit is not None:
            self.limit.cancel()
        self.done(outcome)


@dataclass(slots=True, eq=False)
class _Worker:
    """One process, and what it is doing."""

    supervisor: Supervisor
    """Where it came from, and its successor will."""
    child: Child
    channel: Channel
    born: float
    limit: asyncio.TimerHandle | None = None
    """Set until it is ready."""
    job: _Job | None = None
    at_first: int = 0
    """Bytes that it had when it was ready."""


class WorkerPool:
    """An Executor of `slots` worker processes. `start` it before use, `stop` it at the end."""

    def __init__(self, slots: int, limit_seconds: float, lost: Callable[[], None], recycling: Recycling) -> None:
        """`limit_seconds`: a prediction that takes longer hangs; `lost()` is called for every worker replaced."""
        self._loop = asyncio.get_running_loop()
        self.slots = slots
        self._limit = limit_seconds
        self._lost = lost
        self._recycling = recycling
        self._supervisor: Supervisor | None = None
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        """The last one to have worked is the next to work: its caches are warm."""
        self._ending: set[_Worker] = set()
        """Dismissed; they have yet to be reaped."""
        self._hiring: set[asyncio.Task[None]] = set()
        self._jobs: deque[_Job] = deque()
        """Submitted while no worker was free: only while lost ones are replaced."""
        self._backoff = Backoff()
        self._pause = 0.0
        self._warm: asyncio.Future[None] = self._loop.create_future()
        self._watching: asyncio.Task[None] | None = None

    async def start(self, files: ModelFiles) -> Metadata:
        """Load the model and start the workers; warm when this returns. LoadFailure says why not."""
        process.inherit_orphans()
        self._supervisor = supervisor = Supervisor(files, self._recycling)
        metadata = await supervisor.start()
        for _ in range(self.slots):
            self._hire(supervisor, 0.0)
        await self._warm
        if memory.now() is not None:
            self._watching = self._loop.create_task(self._watch_memory())
        _log.info("workers ready", workers=self.slots, forked=supervisor.forks)
        return metadata

    def submit(self, inputs: Tensors, done: Done) -> None:
        """See Executor."""
        self._again(_Job(inputs, done, logs.request_id.get("")))

    def stop(self) -> None:
        """End every process: whoever stops has drained before."""
        if self._watching is not None:
            self._watching.cancel()
        for task in self._hiring:
            task.cancel()
        for job in (*self._jobs, *(worker.job for worker in self._workers if worker.job is not None)):
            if job.limit is not None:
                job.limit.cancel()
        for worker in list(self._workers):
            self._dismiss(worker)
        for worker in list(self._ending):
            self._loop.remove_reader(worker.child)
            worker.child.ended(_STOP_SECONDS)
            worker.child.close()
        self._ending.clear()
        if self._supervisor is not None:
            self._supervisor.stop()
        process.reap_orphans()

    @property
    def ready(self) -> int:
        """Workers that have a prediction or wait for one."""
        return sum(worker.limit is None for worker in self._workers)

    @property
    def _crash_looping(self) -> bool:
        return not self._workers and self._pause > _GIVE_UP_PAUSE

    def _hire(self, supervisor: Supervisor, pause: float) -> None:
        """Have a new worker in `pause` seconds."""
        task = self._loop.create_task(self._hired(supervisor, pause))
        self._hiring.add(task)
        task.add_done_callback(self._hiring.discard)

    async def _hired(self, supervisor: Supervisor, pause: float) -> None:
        while True:
            if pause:
                await asyncio.sleep(pause)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            to_it, from_it = new_file("inflight-requests"), new_file("inflight-answers")
            channel = Channel(ours, to_it, from_it)
            try:
                with theirs:
                    child = await supervisor.worker([theirs.fileno(), to_it, from_it])
            except (NoWorkerError, LoadFailure, OSError) as error:
                channel.close()
                pause = self._failed(str(error), 0.0, busy=False)
                _log.error("no new worker", error=str(error), pause_seconds=pause)
                self._give_up("no new process could be started")
            except BaseException:
                channel.close()
                raise
            else:
                break
        ours.setblocking(False)
        worker = _Worker(supervisor, child, channel, time.monotonic())
        worker.limit = self._loop.call_later(_START_SECONDS, self._lose, worker, "the model's process did not start")
        self._workers.add(worker)
        self._loop.add_reader(ours, self._readable, worker)
        self._loop.add_reader(child, self._gone, worker)

    def _readable(self, worker: _Worker) -> None:
        try:
            received = worker.channel.receive()
            told = self._understood(worker, *received) if received is not None else None
        except BlockingIOError:
            return
        except (WireError, KeyError, TypeError, ValueError, OverflowError, OSError) as error:
            _log.error("a worker sent nonsense", pid=worker.child.pid, error=repr(error)[:300])
            self._lose(worker, "the model's process talked nonsense")
            return
        if told is not None:
            self._answered(worker, *told)
        elif received is None:
            self._loop.remove_reader(worker.channel)
            self._loop.call_later(_ENDING_SECONDS, worker.child.kill)  # how it ended is known as soon as it has
        else:
            self._free(worker)
            if not self._warm.done() and self.ready == self.slots:
                self._warm.set_result(None)

    def _understood(
        self, worker: _Worker, message: dict[str, Any], data: memoryview
    ) -> tuple[_Job, Outcome, bool] | None:
        """The answer to a job, and whether the worker leaves; None: it is ready. WireError and others for nonsense."""
        if worker.limit is not None:
            if message != {"ready": True}:
                raise WireError("it isn't ready")
            worker.limit.cancel()
            worker.limit = None
            worker.at_first = memory.anonymous(worker.child.pid)
            return None
        if worker.job is None:
            raise WireError("an answer nobody asked for")
        outcome = answers.outcome(message, data, time.perf_counter() - worker.job.started)
        return worker.job, outcome, message["leaving"] is True

    def _answered(self, worker: _Worker, job: _Job, outcome: Outcome, leaving: bool) -> None:
        worker.job = None
        worker.channel.rest()
        self._backoff.worked()
        self._pause = 0.0
        if leaving:
            _log.info("a worker makes way for a fresh one", pid=worker.child.pid)
            self._dismiss(worker)
            self._hire(worker.supervisor, 0.0)
        else:
            self._free(worker)
        job.end(outcome)

    def _free(self, worker: _Worker) -> None:
        if self._jobs:
            self._give(worker, self._jobs.popleft())
        else:
            self._idle.append(worker)

    def _give(self, worker: _Worker, job: _Job) -> None:
        if job.limit is not None:
            job.limit.cancel()
        job.limit = self._loop.call_later(self._limit, self._lose, worker, _HUNG)
        job.started = time.perf_counter()
        worker.job = job
        try:
            worker.channel.send({"request_id": job.request_id}, job.inputs)
        except OSError:  # it has ended, or is about to, and has not seen the request: another may
            worker.job = None
            self._loop.call_later(_ENDING_SECONDS, worker.child.kill)
            self._again(job)
        except UnsendableError as error:
            worker.job = None
            self._free(worker)
            job.end(Outcome(None, Problem(Code.BAD_INPUT, str(error)), 0.0))

    def _again(self, job: _Job) -> None:
        """Give `job` to a worker, now or when there is one."""
        if job.limit is not None:
            job.limit.cancel()
        if self._idle:
            self._give(self._idle.pop(), job)
        elif self._crash_looping:
            self._loop.call_soon(job.done, answers.lost("the model's processes keep ending; see the server's log"))
        else:
            job.limit = self._loop.call_later(self._limit, self._tired, job)
            self._jobs.append(job)

    def _tired(self, job: _Job) -> None:
        self._jobs.remove(job)
        job.end(answers.lost("the model's processes are being replaced, which took longer than any request may"))

    def _gone(self, worker: _Worker) -> None:
        if (how := worker.child.ended()) is None:
            return
        self._lose(worker, f"the model's process ended ({how})")
        self._loop.remove_reader(worker.child)
        worker.child.close()
        self._ending.discard(worker)
        self._loop.call_later(process.SWEEP_SECONDS, process.reap_orphans)

    def _lose(self, worker: _Worker, why: str) -> None:
        """`worker` is of no use any more: fail what it was working on, and replace it."""
        if worker not in self._workers:
            return
        job, worker.job = worker.job, None
        self._dismiss(worker)
        self._lost()
        lived = time.monotonic() - worker.born
        pause = self._failed(why, lived, busy=job is not None)
        _log.error(
            "worker lost", pid=worker.child.pid, why=why, lived_seconds=round(lived, 3), busy=job is not None,
            pause_seconds=pause,
        )  # fmt: skip
        self._hire(worker.supervisor, pause)
        if job is not None:
            job.end(answers.lost(why))
        self._give_up(why)

    async def _watch_memory(self) -> None:
        """End whoever has taken too much before the kernel ends the whole container."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            state = memory.now()
            if state is None or state.room >= eviction.margin(state.limit) or self._ending:
                continue
            grown = {w: memory.anonymous(w.child.pid) - w.at_first for w in self._workers if w.limit is None}
            worker = eviction.choose(state.room, state.limit, grown)
            if worker is not None:
                self._lose(worker, _TOOK_TOO_MUCH.format(grown[worker] / 2**20))

    def _give_up(self, why: str) -> None:
        while self._crash_looping and self._jobs:
            self._jobs.popleft().end(answers.lost(why))

    def _failed(self, why: str, lived: float, *, busy: bool) -> float:
        """Seconds before the next worker."""
        self._pause = self._backoff.lost(lived, busy=busy)
        if self._pause and not self._warm.done():
            self._warm.set_exception(LoadFailure(Reason.LOAD_FAILED, f"{why} before it had answered anything"))
        return self._pause

    def _dismiss(self, worker: _Worker) -> None:
        """End `worker`; it is reaped when it has ended."""
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        if worker.limit is not None:
            worker.limit.cancel()
        self._loop.remove_reader(worker.channel)
        worker.channel.close()
        self._ending.add(worker)
        worker.child.kill()
