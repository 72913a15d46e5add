"""Results as they are kept: one JSON file with every work's last full run, raw, with what it ran on."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.server import venvs
from benchmarks.server.samples import Sample

RESULTS: Final = venvs.REPOSITORY / "benchmarks" / "results"


@dataclass(frozen=True)
class Run:
    """One work, measured in one go."""

    work: str
    when: str
    machine: str
    commit: str
    rounds: int
    seconds: int
    calibration: Mapping[str, float]
    versions: Mapping[str, Mapping[str, str]]
    load_averages: Sequence[float]
    """Of the last minute, at the beginning of each round."""
    samples: Sequence[Sample]
    absent: Sequence[str] = field(default_factory=tuple)
    """Servers that could not be measured in some round, and why."""


def machine() -> str:
    """What it ran on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = next((line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), "")
    return (
        f"{os.cpu_count()} cores ({model or platform.machine()}), {memory:.0f} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )


def now() -> str:
    """For `Run.when`."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def file(*, full: bool) -> Path:
    """Only a full run replaces the last full one."""
    return RESULTS / "server.json" if full else venvs.home() / "server.partial.json"


def save(run: Run, target: Path) -> None:
    """Put a work's run in the place of its last one."""
    runs = load(target) | {run.work: run}
    target.parent.mkdir(parents=True, exist_ok=True)
    content = {work: _plain(runs[work]) for work in sorted(runs)}
    target.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def load(source: Path) -> dict[str, Run]:
    """Every work's run."""
    content: dict[str, Any] = json.loads(source.read_text()) if source.exists() else {}
    return {work: _run(found) for work, found in content.items()}


def _run(found: dict[str, Any]) -> Run:
    samples = []
    for entry in found["samples"]:
        values = {name: _value(value) for name, value in entry["values"].items()}
        samples.append(Sample(**(entry | {"values": values, "notes": tuple(entry["notes"])})))
    return Run(**(found | {"samples": samples}))


def _plain(run: Run) -> dict[str, Any]:
    """JSON has neither infinity nor not-a-number."""
    content = asdict(run)
    for sample in content["samples"]:
        sample["values"] = {name: _number(value) for name, value in sample["values"].items()}
    return content


def _number(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return "inf" if math.isinf(value) else round(value, 6)


def _value(kept: float | str | None) -> float:
    return math.nan if kept is None else float(kept)


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
