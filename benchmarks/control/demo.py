"""How long `make demo` takes: from nothing, with everything built, or with the cluster up already."""

from __future__ import annotations

import subprocess
import time

from benchmarks.control.result import Result
from inflight_cluster.settings import load
from inflight_demo.cluster import ROOT
from inflight_demo.console import Console, clock

_GOALS = {"cold": 20 * 60.0, "warm": 3 * 60.0, "up": 90.0}


def timed(console: Console, *, quick: bool) -> Result:
    """Run it once, from the state that the machine is in, and say which that was."""
    state = _state()
    console.say(f"make demo, {state}; its own output follows")
    began = time.monotonic()
    code = subprocess.run(["make", "demo"], cwd=ROOT, check=False).returncode
    took = time.monotonic() - began
    return Result(
        row=f"demo-{state}",
        what={
            "cold": "`make demo` cold",
            "warm": "`make demo`, tools built, cluster down",
            "up": "`make demo`, cluster up",
        }[state],
        goal=f"<= {clock(_GOALS[state])}",
        measured=clock(took) + ("" if code == 0 else f", and it failed ({code})"),
        kept=code == 0 and took <= _GOALS[state],
        data={"seconds": round(took, 1), "exit": code},
        quick=quick,
    )


def _state() -> str:
    """cold: nothing built; warm: tools built; up: the API server answers."""
    settings = load()
    if not (settings.cache / "bin" / "kube-apiserver").exists():
        return "cold"
    status = subprocess.run([ROOT / "dev" / "cluster", "status"], cwd=ROOT, check=False, capture_output=True)
    return "up" if status.returncode == 0 else "warm"
