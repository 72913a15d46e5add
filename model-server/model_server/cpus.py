"""How many CPUs this process may use: the container's limit where there is one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_CPU_MAX: Final = Path("/sys/fs/cgroup/cpu.max")


def available(cpu_max: Path = _CPU_MAX) -> float:
    """CPUs granted by cgroup v2 (`cpu.max`: quota and period in µs, or "max") and by the affinity mask."""
    granted = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = cpu_max.read_text().split()
        return min(granted, int(quota) / int(period))
    except (OSError, ValueError):
        return granted


def threads_per_prediction(concurrency: int, cpus: float) -> int:
    """Threads inside one prediction, so that `concurrency` of them at once fit the limit."""
    return max(1, int(cpus / concurrency))
