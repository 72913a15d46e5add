"""One server as a tree of processes: started, waited for, weighed and stopped. Knows nothing of what it serves.

Every process of the tree is known by a mark in its environment, which children inherit: some servers put theirs into
sessions of their own. Nothing without the mark is ever touched.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MARK: Final = "INFLIGHT_BENCH_MARK"
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS: Final = 10.0


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Weight:
    """What a tree of processes holds, in MiB, and how many processes it is."""

    rss: float
    pss: float
    processes: int


class Tree:
    """A running server. Use it as a context: however the block ends, nothing of the tree stays."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], directory: Path, log: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.log = log
        directory.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._main = subprocess.Popen(
                list(command),
                env={**environment, MARK: self.mark},
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self._main.pid

    def running(self) -> bool:
        """Whether that process still is."""
        return self._main.poll() is None

    def pids(self) -> list[int]:
        """Everything that descends from it, itself first."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and wanted in _read(entry, "environ"):
                found.append(int(entry))
        return sorted(found, key=lambda pid: (pid != self.pid, pid))

    def cpu_seconds(self) -> float:
        """Processor time of the tree so far, that of processes which have ended and were waited for included."""
        total = 0
        for pid in self.pids():
            fields = _read(pid, "stat").rpartition(b")")[2].split()
            if fields:
                total += sum(int(field) for field in fields[11:15])
        return total / _TICKS

    def weigh(self) -> Weight:
        """Memory of the tree now."""
        rss = pss = 0.0
        pids = self.pids()
        for pid in pids:
            rollup = _read(pid, "smaps_rollup")
            rss += _mebibytes(rollup, b"Rss")
            pss += _mebibytes(rollup, b"Pss")
        return Weight(round(rss, 1), round(pss, 1), len(pids))

    def start_peak(self) -> dict[int, float]:
        """MiB that each process holds now; from now on the kernel notes their peaks anew."""
        held = {}
        for pid in self.pids():
            Path("/proc", str(pid), "clear_refs").write_text("5")
            held[pid] = _mebibytes(_read(pid, "status"), b"VmRSS")
        return held

    def peak_above(self, before: Mapping[int, float]) -> float:
        """MiB that the processes of `before` held more at their peaks, all together."""
        return sum(_mebibytes(_read(pid, "status"), b"VmHWM") - held for pid, held in before.items())

    def last_words(self) -> str:
        """The end of its output."""
        with suppress(OSError):
            return self.log.read_text(errors="replace")[-1500:]
        return ""

    def stop(self) -> None:
        """What Ctrl-C sends, to the one that was started; what is left after a while is killed."""
        if self.running():
            self._main.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._main.wait(_STOP_SECONDS)
        deadline = time.monotonic() + 5
        while (left := self.pids()) and time.monotonic() < deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._main.poll()
            time.sleep(0.05)
        self._main.wait(5)


def _mebibytes(content: bytes, wanted: bytes) -> float:
    """One of the lines `Name:  1234 kB`; 0 without it."""
    for line in content.splitlines():
        name, _, value = line.partition(b":")
        if name == wanted:
            return int(value.split()[0]) / 1024
    return 0.0


def _read(pid: int | str, what: str) -> bytes:
    """A file of /proc; empty when the process has gone or is a zombie."""
    try:
        return Path("/proc", str(pid), what).read_bytes()
    except OSError:
        return b""
