"""How many counted iterations a model takes on this machine: found once at the start, the same for all servers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

import numpy as np

from benchmarks.server.models.chain import chain
from benchmarks.server.models.rows import FEATURES, Rows

CHAIN_SECONDS: Final = 0.100
CALL_SECONDS: Final = 0.011
ROW_SECONDS: Final = 0.000042
_MANY: Final = 257
_GUESS: Final = 700, 150
"""Passes per call and per row that the counts are worked out from."""
_REPEATS: Final = 15


@dataclass(frozen=True)
class Calibration:
    """Counts, and what they cost here when measured once more (seconds of CPU)."""

    chain_steps: int
    call_passes: int
    row_passes: int
    chain_seconds: float = 0
    call_seconds: float = 0
    row_seconds: float = 0

    def environment(self) -> dict[str, str]:
        """As the models read them."""
        return {
            "BENCH_CHAIN_STEPS": str(self.chain_steps),
            "BENCH_ROWS_CALL_PASSES": str(self.call_passes),
            "BENCH_ROWS_ROW_PASSES": str(self.row_passes),
        }


def calibrate() -> Calibration:
    """Counts for the costs above, by CPU time, so that others on the machine change little."""
    chain_steps = round(20_000 * CHAIN_SECONDS / _cpu_seconds(lambda: chain(1, 20_000)))
    call, row = _rows_cost(*_GUESS)
    call_passes, row_passes = round(_GUESS[0] * CALL_SECONDS / call), round(_GUESS[1] * ROW_SECONDS / row)
    found = Calibration(chain_steps, call_passes, row_passes)
    call, row = _rows_cost(found.call_passes, found.row_passes)
    costs = {"chain_seconds": _cpu_seconds(lambda: chain(1, chain_steps)), "call_seconds": call, "row_seconds": row}
    return Calibration(**(asdict(found) | {name: round(cost, 6) for name, cost in costs.items()}))


def rows_model(calibration: Calibration) -> Rows:
    """The W3 model in this process."""
    with _environment(calibration.environment()):
        model = Rows()
        model.load("")
        return model


def _rows_cost(call_passes: int, row_passes: int) -> tuple[float, float]:
    """CPU seconds of a call without rows, and of each row."""
    model = rows_model(Calibration(1, call_passes, row_passes))
    one, many = (np.ones((rows, FEATURES), np.float32) for rows in (1, _MANY))
    few = _cpu_seconds(lambda: model.predict({"x": one}))
    row = (_cpu_seconds(lambda: model.predict({"x": many})) - few) / (_MANY - 1)
    return few - row, row


def _cpu_seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(_REPEATS):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return median(taken)


@contextmanager
def _environment(values: dict[str, str]):  # type: ignore[no-untyped-def]
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
