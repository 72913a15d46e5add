"""Charts of the results: ours and the peers beside each other, with the spread over the rounds. Only here matplotlib
is used; nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.server.report import TITLES, title
from benchmarks.server.samples import Spread, Table, shown
from benchmarks.server.servers import SERVERS
from benchmarks.server.works import crashes, footprint, overload, peak
from benchmarks.server.works.limits import LIMIT
from benchmarks.server.works.throughput import point

mpl.rcParams["svg.hashsalt"] = "inflight"  # the same figures make the same file

_COLOURS: Final = {"ours": "#0b6e4f", "peer": "#8d99ae", "naive": "#c9ada7", "ceiling": "#e0e1dd"}
_LINES: Final = ("#e07a5f", "#3d5a80", "#9a6fb0", "#c2a83e", "#7f8c8d", "#b56576")
_LIMIT: Final = "#444444"


@dataclass(frozen=True)
class Bars:
    """One panel: a value of all servers under one load."""

    load: str
    value: str
    label: str
    logarithmic: bool = False


_PANELS: Final[Mapping[str, Sequence[Bars]]] = {
    "W1": (
        Bars(point(64), "rps", "requests/s, 64 connections", logarithmic=True),
        Bars(point(64), "p99_ms", "p99 in ms, 64 connections", logarithmic=True),
        Bars(point(1), "p50_ms", "p50 in ms, 1 connection", logarithmic=True),
    ),
    "W3": (
        Bars(point(64), "rps", "requests/s, 64 connections"),
        Bars(point(64), "p99_ms", "p99 in ms, 64 connections", logarithmic=True),
        Bars(point(1), "p50_ms", "p50 in ms, 1 connection"),
    ),
    "W4": (
        Bars(point(4), "rps", "requests/s, 4 connections"),
        Bars(peak.ONE, "peak_of_payload", "peak memory of a request, in payloads"),
    ),
    "W5": (
        Bars(footprint.ALONE, "first_answer_seconds", "s from start to first answer", logarithmic=True),
        Bars(footprint.ALONE, "rss_mib", "idle RSS in MiB", logarithmic=True),
        Bars(footprint.ALONE, "installed_mib", "installed MiB"),
    ),
    "crash": (
        Bars(crashes.MIX, "goodput", "healthy answers/s"),
        Bars(crashes.MIX, "healthy_failed", "healthy requests that failed"),
        Bars(crashes.MIX, "longest_silence_seconds", "longest time without an answer, s"),
    ),
}


def write(table: Table, directory: Path) -> list[Path]:
    """One SVG for each work that was measured."""
    written = []
    for work in dict.fromkeys(sample.work for sample in table.samples):
        figure = _overload(table) if work == overload.WORK else _bars(table, work)
        file = directory / f"server-{work.lower()}.svg"
        figure.savefig(file, metadata={"Date": None})
        written.append(file)
    return written


def _bars(table: Table, work: str) -> Figure:
    panels = _PANELS[work]
    figure = Figure(figsize=(4.6 * len(panels), 0.8 + 0.42 * len(table.servers(work))), layout="constrained")
    figure.suptitle(TITLES[work], fontsize=11, x=0.01, ha="left")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, table, work, panel)
    return figure


def _panel(axes: Axes, table: Table, work: str, panel: Bars) -> None:
    found = {
        server: spread
        for server in table.servers(work)
        if server in SERVERS and (spread := table.of(work, server, panel.load, panel.value)) and _finite(spread)
    }
    names = list(found)[::-1]
    spreads = [found[name] for name in names]
    medians = [spread.median for spread in spreads]
    errors = [[s.median - s.lowest for s in spreads], [s.highest - s.median for s in spreads]]
    colours = [_COLOURS[SERVERS[name].kind] for name in names]
    axes.barh([title(name) for name in names], medians, xerr=errors, color=colours, ecolor="#333333", capsize=2)
    if panel.logarithmic:
        axes.set_xscale("log")
    for row, spread in enumerate(spreads):
        axes.annotate(
            shown(spread.median), (max(spread.highest, spread.median), row), (4, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    if panel.logarithmic and medians:
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(min(s.lowest for s in spreads) / 5, max(s.highest for s in spreads) * 8)
    else:
        axes.margins(x=0.18)
    axes.set_title(panel.label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _overload(table: Table) -> Figure:
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    figure.suptitle(TITLES["W2"], fontsize=11, x=0.01, ha="left")
    goodput, latency, wasted = figure.subplots(1, 3)
    for axes, value, label in (
        (goodput, "goodput", "answers/s in time"),
        (latency, "p50_ms", "p50 of answers, ms"),
        (wasted, "wasted_percent", "predictions for nobody, %"),
    ):
        colours = iter(_LINES)
        for server in table.servers("W2"):
            if server in SERVERS:
                ours = SERVERS[server].kind == "ours"
                colour = _COLOURS["ours"] if ours else next(colours)
                _line(axes, table, server, value, colour, told=False)
                if ours:
                    _line(axes, table, server, value, colour, told=True)
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("clients", fontsize=8)
        axes.set_xscale("log")
        axes.set_xticks(overload.CLIENTS, [str(count) for count in overload.CLIENTS])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    if limit := table.of("W2", LIMIT, LIMIT, "goodput"):
        goodput.axhline(limit.median, color=_LIMIT, linestyle=":", linewidth=1)
        goodput.annotate(
            "two bare processes", (50, limit.median), (0, 3), textcoords="offset points", fontsize=8, ha="right"
        )
    figure.legend(*goodput.get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    return figure


def _line(axes: Axes, table: Table, server: str, value: str, colour: str, *, told: bool) -> None:
    named = overload.as_told if told else overload.again
    found = [
        (count, spread)
        for count in overload.CLIENTS
        if (spread := table.of("W2", server, named(count), value)) and _finite(spread)
    ]
    counts = [count for count, _ in found]
    if not counts:
        return
    label = title(server) + (",\nclients that come back when told" if told else "")
    style, width = ("--" if told else "-"), (2.2 if SERVERS[server].kind == "ours" else 1.3)
    axes.plot(counts, [s.median for _, s in found], style, color=colour, linewidth=width, marker="o", ms=3, label=label)
    axes.fill_between(counts, [s.lowest for _, s in found], [s.highest for _, s in found], color=colour, alpha=0.12)


def _finite(spread: Spread) -> bool:
    return spread.highest < float("inf")
