"""More work than two cores can do: a model that computes 500 ms, with 1 and then 5 clients and a 2 s timeout.

There is no number to reach; what a person should see is that the surplus is refused at once, with a time to come
back, and that what is accepted is answered in time. The settings are the example's own, one replica, so that the
picture is of one queue. Drawn into docs/images/calculate.svg.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from benchmarks.control.result import Result
from benchmarks.control.world import NAMESPACE, World, deployment, variant
from inflight_demo.cluster import ROOT
from inflight_demo.console import Console
from inflight_probe.infer import output, request_body, sender, session, through
from inflight_probe.kube import Object
from inflight_probe.load import Outcome, Run, closed_loop

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "inflight"

from matplotlib import pyplot as plt  # noqa: E402 - after the backend is chosen

CHART = ROOT / "docs" / "images" / "calculate.svg"
_CLIENTS = (1, 5)
_TIMEOUT_MILLISECONDS = 2000
_COST_MILLISECONDS = 500
_SOME_STEPS = 2_000_000
_COME_BACK_SECONDS = 0.1
_COLOURS = {"answered": "#2a7f62", "refused": "#e0a030", "timed out or lost": "#c0392b"}


async def refusal(world: World, console: Console) -> list[Result]:
    """Each load in turn, on the same pod."""
    seconds = world.some(60, 10)
    steps = await _calibrated(world)
    console.say(f"{steps:,} steps take {_COST_MILLISECONDS} ms")
    runs = []
    async with world.deployed(_manifest(steps)):
        for clients in _CLIENTS:
            runs.append(await _run(world, clients, seconds))
            console.say(f"{clients} clients: {_told(runs[-1])}")
    if not world.quick:
        draw(runs, CHART)
    return [_result(runs, seconds, world.quick)]


async def _calibrated(world: World) -> int:
    """How many of the example's steps take 500 ms in a pod of this cluster, by the quickest of ten answers."""
    async with world.deployed(_manifest(_SOME_STEPS)):
        run = await _run(world, 1, 10)
    quickest = min(o.seconds for o in run.ok)
    return int(_SOME_STEPS * _COST_MILLISECONDS / 1000 / quickest)


def _manifest(steps: int) -> Object:
    """The calculate example with its own settings, one replica and so many steps."""
    server = {
        "concurrency": 1,
        "maxQueue": 3,
        "timeoutMilliseconds": _TIMEOUT_MILLISECONDS,
        "podTemplate": {"env": [{"name": "INFLIGHT_EXAMPLE_STEPS", "value": str(steps)}]},
    }
    model = variant("main", 100, "calculate/1/model.py", format="python", entrypoint="model:Calculate")
    return deployment("calculate", [model], server, {"maxReplicas": 1})


async def _run(world: World, clients: int, seconds: float) -> Run:
    body = [request_body("x", [[1.0]])]
    async with session(timeout_seconds=10) as http:
        target = through(world.router, NAMESPACE, "calculate")
        send = sender(http, target, body, lambda _n, answer: output(answer))
        return await closed_loop(send, clients=clients, seconds=seconds, pause=_COME_BACK_SECONDS)


def kind(o: Outcome) -> str:
    """How a request ended, in the chart's words: refusals come before any work is done."""
    if o.ok:
        return "answered"
    return "refused" if o.reply.status in (429, 503) else "timed out or lost"


def _told(run: Run) -> str:
    lost = sum(kind(o) == "timed out or lost" for o in run.outcomes)
    times = f"p50 {run.milliseconds(50):.0f} ms, p99 {run.milliseconds(99):.0f} ms"
    return f"{len(run.ok)} answered ({run.rate:.1f}/s, {times}), {len(run.refused)} refused, {lost} timed out or lost"


def draw(runs: Sequence[Run], file: Path) -> None:
    """One panel a load: every request where it was sent, as high as it took."""
    figure, panels = plt.subplots(len(runs), 1, sharex=True, sharey=True, figsize=(8, 5), layout="constrained")
    for panel, run, clients in zip(panels, runs, _CLIENTS, strict=True):
        for word, colour in _COLOURS.items():
            chosen = [o for o in run.outcomes if kind(o) == word]
            x, y = [o.due for o in chosen], [1000 * o.seconds for o in chosen]
            panel.scatter(x, y, s=12, color=colour, label=f"{word}: {len(chosen)}")
        panel.axhline(_TIMEOUT_MILLISECONDS, color="#888", linewidth=0.8, linestyle="--")
        panel.set_title(f"{clients} client{'s' if clients > 1 else ''}", loc="left", fontsize=10)
        panel.set_ylabel("ms until the end")
        panel.legend(loc="upper right", fontsize=8, framealpha=0.9)
    panels[-1].set_xlabel("sent, s after the start (dashed: the 2 s timeout)")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _result(runs: Sequence[Run], seconds: float, quick: bool) -> Result:
    lost = sum(kind(o) == "timed out or lost" for run in runs for o in run.outcomes)
    late = sum(o.seconds * 1000 > _TIMEOUT_MILLISECONDS * 1.1 for run in runs for o in run.ok)
    slow = max((1000 * o.seconds for run in runs for o in run.refused), default=0.0)
    parts = zip(_CLIENTS, runs, strict=True)
    return Result(
        row="refusal",
        what=f"a CPU-bound 500 ms model with 1 and 5 clients, 2 s timeout, {seconds} s each",
        goal="refusals, not timeouts; shown with a chart",
        measured="; ".join(f"{clients}: {_told(run)}" for clients, run in parts),
        kept=not lost and not late and bool(runs[0].ok),
        data={"slowest_refusal_ms": round(slow, 1), "why": [dict(run.why()) for run in runs]},
        quick=quick,
    )
