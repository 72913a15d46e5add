"""A measured row: what was promised, what came out, how to measure it again. Kept as one JSON file a row.

Rows are named within a suite: `python -m benchmarks.<suite> <row>`.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"


@dataclass(frozen=True)
class Result:
    """One row of the table of numbers. `data` holds what the sentence in `measured` was made from."""

    row: str
    what: str
    goal: str
    measured: str
    kept: bool
    data: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False
    when: str = ""
    machine: str = ""
    suite: str = "control"

    @property
    def command(self) -> str:
        """How to measure it again."""
        row = self.row.partition("-")[0] if self.row.startswith("demo-") else self.row
        return f"python -m benchmarks.{self.suite} {row}" + (" --quick" if self.quick else "")


def stamped(result: Result) -> Result:
    """The result with the time and the machine it was measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release().split('-')[0]}"
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Result(**(asdict(result) | {"when": when, "machine": machine}))


def save(result: Result, directory: Path = RESULTS) -> Path:
    """Write <suite>-<row>.json; a quick run never replaces a full one."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{result.suite}-{result.row}{'.quick' if result.quick else ''}.json"
    file.write_text(json.dumps(asdict(result), indent=1, ensure_ascii=False) + "\n")
    return file


def load_all(directory: Path = RESULTS, suite: str = "control") -> dict[str, Result]:
    """Every full result of a suite, by row."""
    found = [json.loads(f.read_text()) for f in sorted(directory.glob(f"{suite}-*.json")) if ".quick" not in f.name]
    return {entry["row"]: Result(**entry) for entry in found}
