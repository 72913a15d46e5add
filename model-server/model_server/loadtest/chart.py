"""The chart: response times above, how requests ended below, one column a load test. Only here matplotlib is used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from model_server.loadtest.record import Stage
from model_server.loadtest.report import Result

_INK, _QUIET, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
_LINE: Final = "#1d6fa5"
_ENDS: Final = (
    ("answered", "#4c9f70"),
    ("refused at once", "#f2c14e"),
    ("timed out", "#c8453b"),
    ("errors", "#5b5b66"),
)
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "svg.hashsalt": "inflight",  # the same figures give the same file
}


def draw(results: Sequence[Result], file: Path) -> None:
    """Write the chart of `results` (at least one, each with a stage) as PNG or SVG, by the file's suffix."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(1.6 + 4.4 * len(results), 6.2), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        panels = figure.subplots(2, len(results), sharey="row", squeeze=False, height_ratios=(3, 2))
        top = _top(results)
        for column, result in enumerate(results):
            _times(panels[0][column], result, top)
            _ends(panels[1][column], result)
        panels[0][0].set_ylabel("response time of answers")
        panels[1][0].set_ylabel("how requests ended")
        handles, names = panels[1][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(_ENDS), frameon=False)
        figure.savefig(file, dpi=160, metadata={"Date": None} if file.suffix.lower() == ".svg" else None)


def _top(results: Sequence[Result]) -> float:
    """The highest time to show, in milliseconds: the timeout, unless it is far away and everybody was answered."""
    slowest = [stage.response_ms.p99 or math.inf for result in results for stage in result.stages]
    timeout = max(1000 * result.timeout_seconds for result in results)
    return 1.12 * (timeout if max(slowest) > timeout / 4 else max(slowest))


def _times(panel: Axes, result: Result, top: float) -> None:
    stages = result.stages
    spots = range(len(stages))
    p50 = [_or_gap(stage.response_ms.p50) for stage in stages]
    p99 = [_or_gap(stage.response_ms.p99) for stage in stages]
    panel.fill_between(spots, p50, p99, color=_LINE, alpha=0.18, linewidth=0)
    panel.plot(spots, p99, color=_LINE, linewidth=1, marker="o", markersize=3.5, alpha=0.7)
    panel.plot(spots, p50, color=_LINE, linewidth=2.4, marker="o", markersize=6)
    _name_lines(panel, p50, p99)
    timeout = 1000 * result.timeout_seconds
    if timeout <= top:
        panel.axhline(timeout, color=_ENDS[2][1], linewidth=1, linestyle=(0, (5, 4)))
        panel.annotate(
            f"clients give up after {result.timeout_seconds:g} s",
            (0, timeout),
            (6, 4),
            xycoords=panel.get_yaxis_transform(),  # from the left edge, whatever the counts are
            textcoords="offset points",
            color=_ENDS[2][1],
            fontsize=8.5,
        )
        _mark_unanswered(panel, [spot for spot, stage in enumerate(stages) if not stage.answers], timeout)
    panel.set_ylim(0, top)
    panel.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value / 1000:g} s" if top > 1500 else f"{value:g} ms")
    )
    panel.yaxis.set_major_locator(MaxNLocator(5))
    panel.yaxis.grid(visible=True, color=_GRID)
    panel.set_axisbelow(True)
    panel.set_title(result.label, loc="left", fontsize=12, fontweight="bold", pad=12)
    _clients(panel, stages, "")


def _mark_unanswered(panel: Axes, spots: Sequence[int], timeout: float) -> None:
    for spot in spots:
        panel.plot(spot, timeout, marker="X", color=_ENDS[2][1], markersize=10, clip_on=False, zorder=5)
    if spots:
        middle = (spots[0] + spots[-1]) / 2
        panel.annotate(
            "nobody is answered",
            (middle, timeout),
            (0, -20),
            textcoords="offset points",
            ha="center",
            color=_ENDS[2][1],
            fontsize=9,
        )


def _name_lines(panel: Axes, p50: Sequence[float], p99: Sequence[float]) -> None:
    """The lines' names at their last points, unless there is no line or they would lie on each other."""
    for values, name, above in ((p50, "p50", False), (p99, "p99", True)):
        last = max((spot for spot, value in enumerate(values) if value == value), default=None)  # noqa: PLR0124
        if last is not None:
            panel.annotate(
                name, (last, values[last]), (9, 3 if above else -9), textcoords="offset points", color=_LINE, fontsize=9
            )


def _ends(panel: Axes, result: Result) -> None:
    stages = result.stages
    spots = list(range(len(stages)))
    below = [0.0] * len(stages)
    for (name, colour), shares in zip(_ENDS, zip(*map(_shares, stages), strict=True), strict=True):
        panel.bar(spots, shares, 0.62, bottom=below, color=colour, label=name)
        below = [low + share for low, share in zip(below, shares, strict=True)]
    for spot, stage in zip(spots, stages, strict=True):
        panel.annotate(
            f"{stage.answers_per_second:.3g}/s",
            (spot, 100),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    panel.set_ylim(0, 100)
    panel.set_title("answers per second", loc="left", fontsize=9, color=_QUIET, pad=16)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    _clients(panel, stages, "clients at once")


def _shares(stage: Stage) -> tuple[float, float, float, float]:
    """Percent of the requests that ended each way, in the order of _ENDS."""
    parts = (stage.answers, stage.refusals, sum(stage.timeouts.values()), sum(stage.errors.values()))
    total = sum(parts) or 1
    answers, refusals, timeouts, errors = (100 * part / total for part in parts)
    return answers, refusals, timeouts, errors


def _clients(panel: Axes, stages: Sequence[Stage], label: str) -> None:
    panel.set_xticks(range(len(stages)), [str(stage.clients) for stage in stages])
    panel.set_xlim(-0.6, len(stages) - 0.4)
    panel.tick_params(length=0)
    panel.set_xlabel(label)


def _or_gap(value: float | None) -> float:
    return float("nan") if value is None else value
