"""Results for people: verdicts, a table for each work with the spread over the rounds, and what it all ran on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.server.kept import Run
from benchmarks.server.promises import verdicts
from benchmarks.server.samples import Sample, Table, shown
from benchmarks.server.servers import SERVERS
from benchmarks.server.verdicts import Verdict

TITLES: Final[Mapping[str, str]] = {
    "W1": "W1: a tiny ONNX model, one row of JSON",
    "W2": "W2: 100 ms of CPU a prediction, clients that give up after 2 s",
    "W3": "W3: a vectorised model, 11 ms a call and 0.04 ms a row, one row a request",
    "W4": "W4: a float32 tensor of 3 MiB",
    "crash": "Crash mix: rows that kill their process, clients that leave, poisoned rows",
    "W5": "W5: start, memory and disk, with a small ONNX model",
}

_COLUMNS: Final[Mapping[str, Sequence[tuple[str, str]]]] = {
    "W1": (("rps", "requests/s"), ("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"), ("cpu_us_per_request", "CPU µs/request")),
    "W2": (
        ("goodput", "answers/s"),
        ("p50_ms", "p50 ms"),
        ("p99_ms", "p99 ms"),
        ("refusal_p99_ms", "refusals' p99 ms"),
        ("timeouts", "timeouts"),
        ("wasted_percent", "for nobody %"),
        ("computed_after", "begun after the end"),
        ("cpu_after_seconds", "CPU s after the end"),
    ),
    "W3": (("rps", "requests/s"), ("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"), ("mean_batch", "rows a call")),
    "W4": (("rps", "requests/s"), ("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"), ("cpu_us_per_request", "CPU µs/request")),
    "crash": (
        ("goodput", "healthy answers/s"),
        ("healthy_failed", "healthy failed"),
        ("healthy_refused", "healthy refused"),
        ("kills", "kills"),
        ("aborted", "aborts"),
        ("poisoned", "poisoned"),
        ("poison_typed", "of these 4xx"),
        ("longest_silence_seconds", "longest silence s"),
        ("rss_growth_mib", "RSS growth MiB"),
    ),
    "W5": (
        ("first_answer_seconds", "first answer s"),
        ("rss_mib", "RSS MiB"),
        ("pss_mib", "PSS MiB"),
        ("processes", "processes"),
        ("installed_mib", "installed MiB"),
        ("packages", "packages"),
    ),
}
_WRONG: Final = ("failed", "wrong", "errors")


def line(sample: Sample) -> str:
    """One sample as it is measured."""
    values = "  ".join(f"{name} {shown(value)}" for name, value in sample.values.items())
    notes = f"  ! {'; '.join(sample.notes)}" if sample.notes else ""
    return f"round {sample.round + 1}  {sample.server:9} {sample.point:28} {values}{notes}"


def title(server: str) -> str:
    """As people call it."""
    return SERVERS[server].title if server in SERVERS else server


def word(verdict: Verdict) -> str:
    """For a table."""
    return {True: "kept", False: "**missed**", None: "not judged"}[verdict.kept]


def document(runs: Mapping[str, Run]) -> str:
    """All of server.md."""
    table = Table([sample for run in runs.values() for sample in run.samples])
    parts = [
        "# The model server beside others",
        "Measured by `make bench-server`: all servers on one machine of two cores, load generators included, one after "
        "the other in every round, in a different order each time. Figures are medians over the rounds with (lowest–"
        "highest). Every answer of W2 and a sample in W1, W3 and W4 was compared with the right one. What each peer "
        "runs with is in `benchmarks/server/servers.py` and `benchmarks/server/peers`.",
        "## Promises",
        _judged(verdicts(table)),
        *[_work(run, table) for run in runs.values()],
    ]
    return "\n\n".join(parts) + "\n"


def _judged(found: Sequence[Verdict]) -> str:
    rows = [(v.work, v.what, str(v.goal), v.said(), word(v), v.peer, v.ceiling) for v in found]
    return _markdown(("", "promise", "goal", "measured", "", "best peer, ours to it", "ceiling"), rows)


def _work(run: Run, table: Table) -> str:
    columns = _COLUMNS[run.work]
    parts = [f"## {TITLES[run.work]}", f"![{run.work}](server-{run.work.lower()}.svg)"]
    for load in table.points(run.work):
        rows = []
        for server in table.servers(run.work):
            spreads = [table.of(run.work, server, load, name) for name, _ in columns]
            if any(spreads):
                cells = [
                    f"{found} ({found.range})" if found and found.median == found.median else "–" for found in spreads
                ]
                rows.append((title(server), *cells, _wrong(table, run.work, server, load)))
        parts.append(f"**{load}**\n\n" + _markdown(("", *(name for _, name in columns), "wrong or failed"), rows))
    return "\n\n".join([*parts, _conditions(run)])


def _wrong(table: Table, work: str, server: str, load: str) -> str:
    """In the worst round."""
    found = [spread.highest for name in _WRONG if (spread := table.of(work, server, load, name))]
    return shown(sum(found)) if found else "–"


def _conditions(run: Run) -> str:
    cost = {name.removesuffix("_seconds"): 1000 * value for name, value in run.calibration.items()}
    generators = [sample.values.get("generator_share", 0.0) for sample in run.samples]
    lines = [
        f"- {run.when}, commit {run.commit}, {run.rounds} rounds, {run.seconds} s a load; {run.machine}",
        f"- load average at the beginning of each round: {', '.join(map(str, run.load_averages))}",
        f"- calibrated: {cost['chain']:.1f} ms a W2 prediction; "
        f"{cost['call']:.2f} ms a W3 call and {cost['row']:.3f} ms a row",
        f"- the load generator used at most {shown(max(generators, default=0.0))} of one core",
        f"- {'; '.join(_version(name, found) for name, found in run.versions.items())}",
        *[f"- not measured: {reason[:300]}" for reason in run.absent],
    ]
    return "\n".join(lines)


_DISTRIBUTIONS: Final = {"plain": "fastapi", "ours": "onnxruntime"}


def _version(name: str, found: Mapping[str, str]) -> str:
    distribution = _DISTRIBUTIONS.get(name, name)
    return f"{distribution} {found.get(distribution, '?')}"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))
