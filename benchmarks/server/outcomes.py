"""What a run of W2 comes to: from what the clients saw and what the model noted, to numbers. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.server.clients import End, Load
from benchmarks.server.models.chain import RECORD
from benchmarks.server.samples import quantile

RAMP_SECONDS: Final = 1.0
"""Left out at the beginning: no prediction can have ended yet."""
_ON_ITS_WAY_SECONDS: Final = 0.05
"""An answer to a prediction that ended so shortly before the load did may not have arrived."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """One prediction, as the model noted it; `rows` of one call in W3."""

    identity: int
    start: float
    end: float
    rows: int


def read(file: Path) -> list[Predicted]:
    """All that the model noted so far."""
    content = file.read_bytes() if file.exists() else b""
    whole = len(content) - len(content) % RECORD.size
    return [Predicted(*values) for values in RECORD.iter_unpack(content[:whole])]


def values(load: Load, predictions: Sequence[Predicted], cpu_after: float) -> dict[str, float]:
    """Rates in 1/s, latencies in ms, of the time from the ramp to the end.

    Wasted is each prediction that ended in that time and whose answer no client took; `cpu_after` are the seconds of
    CPU that the server used after the last client had gone.
    """
    begin, end = load.started + RAMP_SECONDS, load.ended
    counted = [tried for tried in load.tried if tried.ended >= begin]
    kinds = Counter(tried.end for tried in counted)
    answers, refusals = (
        [1000 * (tried.ended - tried.sent) for tried in counted if tried.end is kind]
        for kind in (End.ANSWER, End.REFUSAL)
    )
    taken = {tried.identity for tried in load.tried if tried.end is End.ANSWER}
    computed = [p for p in predictions if begin <= p.end <= end - _ON_ITS_WAY_SECONDS]
    wasted = sum(p.identity not in taken for p in computed)
    return {
        "goodput": len(answers) / (end - begin),
        "p50_ms": quantile(answers, 0.5),
        "p99_ms": quantile(answers, 0.99),
        "refusals": kinds[End.REFUSAL] / (end - begin),
        "refusal_p99_ms": quantile(refusals, 0.99),
        "timeouts": kinds[End.TIMEOUT],
        "wrong": kinds[End.WRONG],
        "errors": kinds[End.ERROR],
        "wasted_percent": 100 * wasted / len(computed) if computed else math.nan,
        "computed_after": sum(p.start > end for p in predictions),
        "cpu_after_seconds": cpu_after,
        "generator_share": load.cpu_seconds / (end - load.started),
    }


def details(load: Load) -> tuple[str, ...]:
    """What went wrong, each kind once with how often."""
    found = Counter(
        f"{tried.end} {tried.detail}".strip() for tried in load.tried if tried.end in (End.ERROR, End.WRONG)
    )
    return tuple(f"{count} x {what}" for what, count in found.most_common(5))


def rate(ends: Sequence[float]) -> float:
    """Predictions a second of one process that does nothing else, from the times at which they ended."""
    if len(ends) < 2:
        return math.nan
    return (len(ends) - 1) / (max(ends) - min(ends))
