"""Pools of real worker processes for tests, and a model that does what it is told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from model_server.executor import Outcome
from model_server.models.tensors import Tensors
from model_server.workers.pool import WorkerPool
from model_server.workers.supervisor import ModelFiles
from model_server.workers.worker import Recycling

MODEL = """
import ctypes, os, signal, socket, stat, subprocess, sys, time
import numpy as np

print("said while loading")

def sockets():
    for fd in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                yield socket.socket(fileno=os.dup(fd))
        except OSError:
            pass

class Broken(Exception):
    def __str__(self):
        raise RuntimeError("not even this")

class Model:
    '''Does what its input `do` says, and answers its process and its other inputs.'''

    def load(self, path):
        self.weights = np.random.random(1 << 16)
        self.kept = []

    def predict(self, inputs):
        what = inputs["do"].reshape(-1)[0].decode() if "do" in inputs else "echo"
        answer = getattr(self, what.replace("-", "_"))(inputs)
        return answer or {"pid": np.array([os.getpid()]), **{k: v for k, v in inputs.items() if k != "do"}}

    def echo(self, inputs): pass
    def segfault(self, inputs): ctypes.string_at(0)
    def exit(self, inputs): os._exit(3)
    def hang(self, inputs): time.sleep(600)
    def nap(self, inputs): time.sleep(0.5)
    def stop(self, inputs): os.kill(os.getpid(), signal.SIGSTOP)
    def close(self, inputs): os.closerange(3, 256)
    def refuse(self, inputs): raise ValueError("that is no digit")
    def fail(self, inputs): raise KeyError("secret")
    def quit(self, inputs): sys.exit(1)
    def broken(self, inputs): raise Broken()
    def surrogate(self, inputs): raise ValueError("\\udc80")
    def complex(self, inputs): return {"y": np.ones(3, complex)}
    def unicode(self, inputs): return {"y": np.array(["\\udc80"], object)}
    def random(self, inputs): return {"y": np.array([np.random.random()])}
    def nice(self, inputs):
        score = int(open("/proc/self/oom_score_adj").read())
        group = int(open("/proc/self/autogroup").read().split()[-1]) if os.path.exists("/proc/self/autogroup") else 10
        return {"nice": np.array([os.nice(0)]), "oom": np.array([score]), "group": np.array([group])}
    def keep(self, inputs): self.kept.append(inputs["x"])
    def kept_first(self, inputs): return {"x": self.kept[0]}
    def write(self, inputs): inputs["x"] += 1
    def child(self, inputs): return {"pid": np.array([subprocess.Popen(["sleep", "600"]).pid])}

    def spin(self, inputs):
        while True: pass

    def eat(self, inputs):
        while True: self.kept.append(np.ones(1 << 22))

    def hoard(self, inputs):
        self.kept.append(np.ones(1 << 24))
        time.sleep(60)

    def leak(self, inputs): self.kept.append(np.ones(1 << 22))

    def say(self, inputs):
        print("said before the end")
        time.sleep(0.2)
        os._exit(1)

    def forge(self, inputs):
        for sock in sockets():
            sock.send(inputs["x"].tobytes())
        time.sleep(600)

    def sparse(self, inputs):
        for fd in range(3, 64):
            try:
                if "memfd" in os.readlink(f"/proc/self/fd/{fd}"):
                    os.ftruncate(fd, 1 << 40)
            except OSError:
                pass
        self.forge(inputs)
"""

FRONT = """
import asyncio, os, sys
from pathlib import Path
import numpy as np
from model_server.workers.pool import WorkerPool
from model_server.workers.supervisor import ModelFiles
from model_server.workers.worker import Recycling

async def main():
    pool = WorkerPool(3, 30, lambda: None, Recycling())
    await pool.start(ModelFiles(Path(sys.argv[1]), "python", "", 1, 2**30, "cpu"))
    for what in sys.argv[2:]:
        ended = asyncio.get_running_loop().create_future()
        pool.submit({"do": np.array([what.encode()], object)}, lambda outcome: ended.done() or ended.set_result(0))
        if what != "spin":
            await ended
    print("ready", flush=True)
    sys.stdin.read()
    pool.stop()

asyncio.run(main())
"""
"""A process of its own with a pool of three: the model's file, then what its workers shall do."""

_NEVER = Recycling()


class Pool:
    """A pool, and how many workers it has lost."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.lost = 0

    async def predict(self, do: str = "echo", **inputs: Any) -> Outcome:
        """How one prediction ended."""
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.pool.submit({"do": np.array([do.encode()], object), **inputs}, ended.set_result)
        async with asyncio.timeout(20):
            return await ended

    async def pid(self) -> int:
        """Of a worker."""
        return int(answered(await self.predict())["pid"][0])

    async def pids(self) -> set[int]:
        """Of all workers that are free."""
        outcomes = await asyncio.gather(*(self.predict("nap") for _ in range(self.pool.slots)))
        return {int(answered(outcome)["pid"][0]) for outcome in outcomes}


def answered(outcome: Outcome) -> Tensors:
    """The outputs, which must be there."""
    assert outcome.outputs is not None, outcome.error
    return outcome.outputs


def files(path: Path, threads: int = 1) -> ModelFiles:
    """A Python model."""
    return ModelFiles(path, "python", "", threads, 2**30, "cpu")


@asynccontextmanager
async def running(
    model: Path, slots: int = 1, limit: float = 30, recycling: Recycling = _NEVER, threads: int = 1
) -> AsyncIterator[Pool]:
    """A pool that serves."""
    pool: Pool

    def lost() -> None:
        pool.lost += 1

    pool = Pool(WorkerPool(slots, limit, lost, recycling))
    try:
        await pool.pool.start(files(model, threads))
        yield pool
    finally:
        pool.pool.stop()


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie doesn't."""
    return _stat(pid)[0] not in "ZX"


def parent(pid: int) -> int:
    """Its parent's number."""
    return int(_stat(pid)[1])


def children(pid: int) -> set[int]:
    """Of one process, zombies too."""
    return {
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    }


def descriptors() -> int:
    """Open ones of this process."""
    return len(os.listdir("/proc/self/fd"))


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["X", "0"]
