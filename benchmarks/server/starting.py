"""What it takes to start a server: plain data that `servers` fills in. Starts nothing itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.server import venvs
from benchmarks.server.dialects import Dialect

HERE: Final = Path(__file__).resolve().parent
MODELS: Final = HERE / "models"
TIMEOUT_SECONDS: Final = 2.0
"""The clients' patience in W2; also told to peers that have a setting for it."""
PATIENT_SECONDS: Final = 30.0
ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_NOT_INHERITED: Final = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONPATH", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Start:
    """What starting needs: the work, a port and two more, a directory of its own, what the models read."""

    work: str
    port: int
    others: tuple[int, int]
    directory: Path
    model_environment: Mapping[str, str]
    constant: str = ""
    """The body of the right answer to the first question, for a ceiling that knows only this one."""

    @property
    def onnx(self) -> Path:
        """The model's file of W1, W4 and W5."""
        return venvs.home() / "models" / ("image.onnx" if self.work == "W4" else "tiny.onnx")

    @property
    def patience(self) -> float:
        """Seconds that a server may take for an answer."""
        return TIMEOUT_SECONDS if self.work == "W2" else PATIENT_SECONDS


@dataclass(frozen=True)
class Server:
    """One way to serve."""

    name: str
    title: str
    environment: str
    """Which venv."""
    works: tuple[str, ...]
    command: Callable[[Start], list[str]]
    talk: Callable[[str], Dialect]
    """The dialect by work."""
    variables: Callable[[Start], dict[str, str]] = lambda _: {}
    kind: Literal["ours", "peer", "naive", "ceiling"] = "peer"

    def full_environment(self, start: Start) -> dict[str, str]:
        """All variables of its processes."""
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        mine = {} if self.kind == "ours" else ONE_THREAD | for_peers(start)
        return kept | mine | dict(start.model_environment) | self.variables(start)


def for_peers(start: Start) -> dict[str, str]:
    """How the peers' code and the models learn what to do."""
    return {
        "BENCH_CONSTANT": start.constant,
        "BENCH_WORK": start.work,
        "BENCH_MODEL": str(start.onnx),
        "BENCH_TIMEOUT": str(start.patience),
        "PYTHONPATH": f"{HERE / 'peers'}{os.pathsep}{MODELS}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
