"""The results as text and as JSON. Pure: it prints and writes nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from model_server.loadtest.plan import LoadTestError
from model_server.loadtest.record import Quantiles, Stage

BUSY: Final = 0.9
"""CPU of the generator from which its figures may be its own limit."""
LATE_MS: Final = 20.0
NONE: Final = "–"
_WIDTH: Final = 7


@dataclass(frozen=True)
class Result:
    """One load test."""

    label: str
    url: str
    timeout_seconds: float
    within_seconds: float
    duration_seconds: float
    retry: str
    settle_seconds: float
    started: str
    """UTC, ISO 8601."""
    interrupted: bool
    stages: tuple[Stage, ...]

    def as_json(self) -> str:
        """Everything, indented."""
        members = {**vars(self), "stages": [stage.as_json() for stage in self.stages]}
        return json.dumps(members, indent=1) + "\n"

    @classmethod
    def of_json(cls, text: str) -> Self:
        """What `as_json` wrote. LoadTestError for anything else."""
        try:
            members: dict[str, Any] = json.loads(text)
            return cls(**{**members, "stages": tuple(Stage.of_json(stage) for stage in members["stages"])})
        except (ValueError, KeyError, TypeError):
            raise LoadTestError("is no result written by --json") from None


@dataclass(frozen=True)
class _Column:
    head: tuple[str, str]
    cell: Callable[[Stage], str]


def _number(value: float | None, digits: int = 0) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def _ms(value: float | None) -> str:
    """Three digits that matter: 0.42, 4.2, 420."""
    return _number(value, 0 if value is None or value >= 100 else 1 if value >= 10 else 2)


def _both(times: Quantiles) -> str:
    return NONE if times.p50 is None else f"{_ms(times.p50)} / {_ms(times.p99)}"


_COLUMNS: Final = (
    _Column(("", "clients"), lambda s: f"{s.clients}"),
    _Column(("answers", "per s"), lambda s: _number(s.answers_per_second, 1)),
    _Column(("response", "p50 ms"), lambda s: _ms(s.response_ms.p50)),
    _Column(("", "p90 ms"), lambda s: _ms(s.response_ms.p90)),
    _Column(("", "p99 ms"), lambda s: _ms(s.response_ms.p99)),
    _Column(("timed", "out"), lambda s: f"{s.timeout_ratio:.1%}"),
    _Column(("", "refused"), lambda s: f"{s.refusal_ratio:.1%}"),
    _Column(("refusal", "p99 ms"), lambda s: _ms(s.refusal_ms.p99)),
    _Column(("", "errors"), lambda s: _number(sum(s.errors.values()))),
    _Column(("until answered", "p50 / p99 ms"), lambda s: _both(s.until_answered_ms)),
)
_GOODPUT: Final = _Column(("good", "per s"), lambda s: _number(s.goodput_per_second, 1))
_RECOVERY: Final = _Column(("recovered", "after s"), lambda s: _number(s.recovery_seconds, 1))


class Table:
    """A table of which each line can be printed as soon as its stage is over."""

    def __init__(self, *, goodput: bool, recovery: bool) -> None:
        columns = [*_COLUMNS[:2], *([_GOODPUT] if goodput else []), *_COLUMNS[2:], *([_RECOVERY] if recovery else [])]
        self._columns = columns
        self._widths = [max(_WIDTH, *map(len, column.head)) for column in columns]

    def head(self) -> str:
        """Two lines."""
        return "\n".join(self._line(column.head[row] for column in self._columns) for row in (0, 1))

    def row(self, stage: Stage) -> str:
        """One line."""
        return self._line(column.cell(stage) for column in self._columns)

    def _line(self, cells: Iterable[str]) -> str:
        return "  ".join(cell.rjust(width) for cell, width in zip(cells, self._widths, strict=True)).rstrip()


def notes(result: Result) -> list[str]:
    """What the table has no room for, a line each; warnings about the generator itself come last."""
    stages = result.stages
    lines = [
        *_kinds("errors", (stage.errors for stage in stages)),
        *_kinds("timeouts", (stage.timeouts for stage in stages)),
        *_kinds("answers by variant", (stage.variants for stage in stages)),
    ]
    if cached := sum(stage.cached for stage in stages):
        lines.append(
            f"{cached:,} answers were not computed but shared or kept by the server's cache: all requests are alike"
        )
    for stage in stages:
        if stage.unanswered_clients and stage.answers:
            lines.append(f"{stage.unanswered_clients} of {stage.clients} clients had no answer at all")
    return lines + [line for stage in stages for line in _doubts(stage)]


def _kinds(what: str, counted: Iterable[Mapping[str, int]]) -> list[str]:
    total: Counter[str] = sum((Counter(counts) for counts in counted), Counter())
    return [f"{what}: " + ", ".join(f"{count:,} × {kind}" for kind, count in total.most_common())] if total else []


def _doubts(stage: Stage) -> list[str]:
    if stage.generator_cpu > BUSY:
        return [
            f"warning: at {stage.clients} clients the load generator used {stage.generator_cpu:.0%} of its one core: "
            "the figures are its limit, not the server's"
        ]
    if (late := stage.generator_lag_ms or 0.0) > LATE_MS:
        return [
            f"warning: at {stage.clients} clients the load generator itself was up to {late:.0f} ms late (p99): "
            "this machine is too busy for exact times"
        ]
    return []


def heading(result: Result) -> str:
    """What was asked, and how."""
    goal = "" if result.within_seconds == result.timeout_seconds else f", good within {result.within_seconds:g} s"
    return (
        f"{result.label}: {result.url}\nclients give up after {result.timeout_seconds:g} s{goal}, "
        f"come back after a refusal {result.retry}; {result.duration_seconds:g} s each"
    )
