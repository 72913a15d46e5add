"""Measures rows one after the other on the cluster that is up, keeps what came out, and says it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence

from benchmarks.control import world
from benchmarks.control.result import Result, save, stamped
from inflight_cluster.errors import ClusterError
from inflight_demo.console import Console
from inflight_probe.kube import ApiError

Row = Callable[[world.World, Console], Awaitable[list[Result]]]


async def measure(
    known: Mapping[str, Row],
    rows: Sequence[str],
    console: Console,
    results: list[Result],
    broken: list[str],
    *,
    quick: bool,
) -> None:
    """Inside the cluster's network, into `results`, and what could not be measured into `broken`: it does not keep the
    others from it."""
    async with world.opened(quick=quick) as where:
        for row in rows:
            try:
                with console.step(row):
                    results += [kept(result) for result in await known[row](where, console)]
            except (ApiError, ClusterError, TimeoutError, LookupError, OSError, AssertionError) as error:
                broken.append(f"{row}: {type(error).__name__}: {error}")


def kept(result: Result) -> Result:
    """The result with when and where it was measured, once it is on disk."""
    done = stamped(result)
    save(done)
    return done


def conclude(results: Sequence[Result], broken: Sequence[str], console: Console) -> int:
    """Say what came out. Exit status 0: every row kept its goal. 1: one missed. 2: one could not be measured."""
    print()
    table = [(r.row, r.goal, r.measured, "kept" if r.kept else "MISSED") for r in results]
    console.show(("row", "goal", "measured", ""), table)
    for line in broken:
        print(f"not measured: {line}", file=sys.stderr)
    return 2 if broken else 0 if all(r.kept for r in results) else 1
