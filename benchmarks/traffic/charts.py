"""Charts of the kept results, as SVG beside them. Only here matplotlib is used; nothing is judged here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.control.result import Result

mpl.rcParams["svg.hashsalt"] = "inflight"  # the same results make the same file

DIRECTORY: Final = Path(__file__).resolve().parents[1] / "results"
_OURS, _OTHERS, _GOAL = "#0b6e4f", "#8d99ae", "#b3403a"
_COUNTED: Final = re.compile(r"(\d+) failed of ([\d,]+) \(p50 (\d+) ms, p99 (\d+) ms\)")


def write(results: Mapping[str, Result], directory: Path = DIRECTORY) -> list[Path]:
    """One SVG for each chart that there are results for."""
    charts: Mapping[str, Callable[[Mapping[str, Result]], Figure | None]] = {
        "traffic-faults": _faults,
        "traffic-fleet": _fleet,
        "traffic-hedging": _hedging,
        "traffic-limit": _limit,
    }
    written = []
    for name, draw in charts.items():
        if figure := draw(results):
            written.append(directory / f"{name}.svg")
            figure.savefig(written[-1], metadata={"Date": None})
    return written


def _faults(results: Mapping[str, Result]) -> Figure | None:
    """p99 of each row that asks all the time, and how many requests failed; without those that have to fail."""
    found = [(r, m) for r in results.values() if r.goal != "fails" and (m := _COUNTED.search(r.measured))]
    if not found:
        return None
    figure = Figure(figsize=(8, 0.34 * len(found) + 1.2), layout="constrained")
    axes = figure.subplots()
    names = [r.row for r, _ in found][::-1]
    for place, (result, match) in enumerate(reversed(found)):
        failed, asked, _, p99 = match.groups()
        axes.barh(place, int(p99), color=_OURS if result.kept else _GOAL, height=0.6)
        axes.text(int(p99) + 4, place, f"{failed} of {asked} failed", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("p99 in ms of a model that waits 20 ms, while it happens")
    axes.margins(x=0.25)
    _plain(axes)
    return figure


def _fleet(results: Mapping[str, Result]) -> Figure | None:
    """What a change of one ModelDeployment costs, by how many there are."""
    if "fleet" not in results or "grown" not in results["fleet"].data:
        return None
    grown = results["fleet"].data["grown"]
    panels = {
        "weight ms p99": ("a weight in force, p99 in ms", 150),
        "weight CPU ms": ("the operator's CPU for it, ms", 20),
        "router MiB": ("a router's memory, MiB", 250),
    }
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, (key, (title, goal)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        counts = [found["models"] for found in grown]
        axes.plot(counts, [found[key] for found in grown], marker="o", color=_OURS)
        axes.axhline(goal, color=_GOAL, linestyle="--", linewidth=1)
        axes.text(counts[0], goal, " goal at 1,000", color=_GOAL, fontsize=8, va="bottom")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("ModelDeployments")
        axes.set_ylim(0, 1.15 * max(goal, *(found[key] for found in grown)))
        _plain(axes)
    return figure


def _hedging(results: Mapping[str, Result]) -> Figure | None:
    """p99 with one slow pod of five, by what is done about it."""
    if "hedged" not in results:
        return None
    runs = results["hedged"].data["runs"]
    by_way: dict[str, list[float]] = {}
    for run in runs:
        by_way.setdefault(run["way"], []).append(float(run["p99 ms"]))
    return _spread(by_way, "p99 in ms, one of five pods ten times slower", ours="hedged")


def _limit(results: Mapping[str, Result]) -> Figure | None:
    """Requests per second at the limit, beside Envoys with static configurations."""
    if "latency" not in results or not isinstance(results["latency"].data["limit_per_s"], Mapping):
        return None
    limit: Mapping[str, Sequence[float]] = results["latency"].data["limit_per_s"]
    return _spread(limit, "requests/s at the limit (the bare Envoy does nothing else)", ours="router")


def _spread(by_name: Mapping[str, Sequence[float]], label: str, ours: str) -> Figure:
    """A bar for each median, a dot for each round."""
    figure = Figure(figsize=(8, 0.6 * len(by_name) + 1), layout="constrained")
    axes = figure.subplots()
    for place, (name, values) in enumerate(reversed(list(by_name.items()))):
        axes.barh(place, median(values), color=_OURS if name == ours else _OTHERS, height=0.5)
        axes.plot(values, [place] * len(values), "o", color="black", markersize=3)
    axes.set_yticks(range(len(by_name)), list(by_name)[::-1])
    axes.set_xlabel(label)
    _plain(axes)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
