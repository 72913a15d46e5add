"""Processes below this one: started, inherited, ended, and told how they ended. Linux only.

They are held by descriptor, so that no signal reaches a process that happens to have got the same number, and nothing
here waits. Each leads a group of its own, which ends with it: what a model has started doesn't outlive its worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

HANDED: Final = 3
"""The descriptor at which a started process finds its socket."""
SWEEP_SECONDS: Final = 1.0
"""From the end of a process to that of all that it had started."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_ENDED: Final = os.WEXITED | os.WNOHANG
_MEMORY_EVENTS: Final = Path("/sys/fs/cgroup/memory.events")

_known: Final[set[int]] = set()
"""Numbers of the children that somebody holds."""


class NotOurChildError(Exception):
    """A number that is no child of this process."""


class Child:
    """A child of this process, from its start until it has ended."""

    def __init__(self, pid: int) -> None:
        """NotOurChildError when `pid`, perhaps told by somebody else, is no child of this process."""
        self.pid = pid
        self._how: str | None = None
        self._killed = False
        self._out_of_memory = out_of_memory_kills()
        try:
            self._descriptor = os.pidfd_open(pid)
        except OSError as error:
            raise NotOurChildError(f"{pid} is no process: {error.strerror}") from None
        try:
            os.waitid(os.P_PIDFD, self._descriptor, _ENDED | os.WNOWAIT)
        except ChildProcessError:
            os.close(self._descriptor)
            raise NotOurChildError(f"process {pid} is somebody else's") from None
        _known.add(pid)

    def fileno(self) -> int:
        """Readable once it has ended."""
        return self._descriptor

    def kill(self) -> None:
        """End it and its group now, whatever they do."""
        if self._how is None:
            self._killed = True
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
            self._kill_group()

    def ended(self, seconds: float = 0) -> str | None:
        """How it ended, in words; None while it lives. Waits for it up to `seconds`."""
        if self._how is None and select.select([self._descriptor], [], [], seconds)[0]:
            self._kill_group()  # before it is reaped: until then its number is nobody else's
            status = os.waitid(os.P_PIDFD, self._descriptor, _ENDED)
            self._how = self._told(status) if status is not None else "unknown"
            _known.discard(self.pid)
        return self._how

    def close(self) -> None:
        """Forget one that has ended."""
        os.close(self._descriptor)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _told(self, status: os.waitid_result) -> str:
        if status.si_code == os.CLD_EXITED:
            return f"exit code {status.si_status}"
        number = status.si_status
        name = signal.Signals(number).name if number in {*signal.Signals} else f"signal {number}"
        if number != signal.SIGKILL or self._killed:
            return name
        return f"{name}, out of memory" if out_of_memory_kills() > self._out_of_memory else name


def start(module: str, arguments: Sequence[str], sock: socket.socket, environ: Mapping[str, str]) -> Child:
    """A fresh interpreter that runs `module`, with `sock` at HANDED.

    Call it from a thread that stays: the kernel takes the end of that thread for the end of the parent.
    """
    root = Path(__file__).parents[2]
    program = f"import sys; sys.path.append({str(root)!r}); from {module} import main; main()"
    command = [sys.executable, "-P", "-c", program, *arguments]
    actions: list[Any] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, sock.fileno(), HANDED),
    ]
    return Child(os.posix_spawn(sys.executable, command, environ, file_actions=actions))


def inherit_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def reap_orphans() -> None:
    """Reap inherited processes that have ended: nobody else does. They are of other sessions than this process."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended, or this kernel doesn't list children
            for pid in map(int, (task / "children").read_text().split()):
                state, session = _stat(pid)
                if state == "Z" and session != os.getsid(0) and pid not in _known:
                    os.waitpid(pid, os.WNOHANG)


def _stat(pid: int) -> tuple[str, int]:
    """(state, session)."""
    state, _, _, session = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:4]
    return state, int(session)


def die_with_parent(parent: int) -> None:
    """Be killed when the process `parent`, which is this one's parent, ends however it may."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def out_of_memory_kills(events: Path = _MEMORY_EVENTS) -> int:
    """How often the kernel has ended processes of this container because its memory was full; 0 if it doesn't say."""
    with contextlib.suppress(OSError, ValueError):
        for line in events.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
