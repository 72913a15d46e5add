"""What was promised of the model server, work by work, judged from the samples. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from benchmarks.server.samples import Table, shown
from benchmarks.server.servers import SERVERS
from benchmarks.server.starting import TIMEOUT_SECONDS
from benchmarks.server.verdicts import (
    OURS,
    Goal,
    Verdict,
    beside,
    best,
    figure,
    median_of,
    of_all,
    ratio,
    worst,
)
from benchmarks.server.works import crashes, footprint, overload, peak
from benchmarks.server.works.limits import LIMIT
from benchmarks.server.works.throughput import point

CONSTANT: Final = "constant"
READING: Final = "reading"


def verdicts(table: Table) -> list[Verdict]:
    """Every promise, in order, also those that could not be judged."""
    judges: tuple[Callable[[Table], Iterator[Verdict]], ...] = (
        _tiny, _closed_loops, _spared, _open_loops, _batching, _large, _footprint, _crashes,
    )  # fmt: skip
    return [verdict for judge in judges for verdict in judge(table)]


def _tiny(table: Table) -> Iterator[Verdict]:
    many, of = point(64), partial(table.of, "W1")
    rps, peer = of(OURS, many, "rps"), best(table, "W1", many, "rps")
    constant = of(CONSTANT, many, "rps")
    yield Verdict(
        "W1",
        "requests/s at 64 connections, to the best peer's",
        Goal(">=", 8, "x"),
        ratio(rps, peer[1] if peer else None),
        peer=beside(peer, median_of(rps), "/s"),
    )
    yield Verdict(
        "W1",
        "requests/s at 64 connections, to uvicorn's answering a constant",
        Goal(">=", 0.5, "x"),
        ratio(rps, constant),
        f"{shown(ratio(rps, constant))} x: {figure(rps, '/s')}",
        ceiling=figure(constant, "/s"),
    )
    p99, constant = of(OURS, many, "p99_ms"), of(CONSTANT, many, "p99_ms")
    yield Verdict(
        "W1",
        "p99 at 64 connections, to uvicorn's answering a constant",
        Goal("<=", 3, "x"),
        ratio(p99, constant),
        f"{shown(ratio(p99, constant))} x: {figure(p99, 'ms')}",
        beside(best(table, "W1", many, "p99_ms", higher=False), median_of(p99), "ms"),
        figure(constant, "ms"),
    )
    p50 = of(OURS, point(1), "p50_ms")
    quickest = best(table, "W1", point(1), "p50_ms", higher=False)
    yield Verdict(
        "W1",
        "p50 at 1 connection",
        Goal("<=", 0.2, "ms"),
        median_of(p50),
        figure(p50, "ms"),
        beside(quickest, median_of(p50), "ms"),
    )


def _closed_loops(table: Table) -> Iterator[Verdict]:
    """Against the limit of the same round."""
    for named, share, clients in (
        (overload.as_told, 95, "clients that come back when told"),
        (overload.again, 85, "clients that retry after 0.1 s"),
    ):
        loads = [named(count) for count in overload.CLIENTS if count >= 2]
        found = {load: median_of(table.of("W2", OURS, load, "of_limit_percent")) for load in loads}
        load = min(found, key=lambda name: found[name])
        goodput = table.of("W2", OURS, named(50), "goodput")
        yield Verdict(
            "W2",
            f"goodput at 2 to 50 clients, to the limit; {clients}",
            Goal(">=", share, "%"),
            found[load],
            f"{shown(found[load])} % (at {load.split(',')[0]})",
            f"at 50: {beside(best(table, 'W2', overload.again(50), 'goodput'), median_of(goodput), '/s')}",
            figure(table.of("W2", LIMIT, LIMIT, "goodput"), "/s"),
        )
    slowest = worst(of_all(table, "W2", OURS, [overload.as_told(50), overload.again(50)], "p50_ms"))
    yield Verdict(
        "W2",
        "p50 of answers at 50 clients",
        Goal("<=", 600, "ms"),
        slowest,
        peer=beside(best(table, "W2", overload.again(50), "p50_ms", higher=False), slowest, "ms"),
    )


_CLOSED: Final = [named(count) for named in (overload.as_told, overload.again) for count in overload.CLIENTS]
_OPEN: Final = [overload.arriving(times) for times in overload.TIMES_CAPACITY]


def _spared(table: Table) -> Iterator[Verdict]:
    """What nobody should have had to wait for, or to compute. The worst load counts, and for losses every round."""
    ours = partial(of_all, table, "W2", OURS)
    fifty = partial(best, table, "W2", overload.again(50), higher=False)
    lost = [spread.highest for value in ("timeouts", "errors", "wrong") for spread in ours(_CLOSED, value) if spread]
    yield Verdict(
        "W2",
        "timeouts, errors and wrong answers instead of an answer or a refusal, all in the worst rounds",
        Goal("<=", 0),
        sum(lost) if lost else math.nan,
        peer=beside(fifty("timeouts"), math.nan if not lost else sum(lost), "timeouts at 50"),
    )
    refusal = worst(ours([*_CLOSED, *_OPEN], "refusal_p99_ms"))
    yield Verdict(
        "W2",
        "p99 of refusals, worst load",
        Goal("<=", 10, "ms"),
        refusal,
        peer=beside(fifty("refusal_p99_ms"), refusal, "ms at 50"),
    )
    wasted = worst(ours([*_CLOSED, *_OPEN], "wasted_percent"))
    yield Verdict(
        "W2",
        "predictions for nobody, worst load",
        Goal("<=", 1, "%"),
        wasted,
        peer=beside(fifty("wasted_percent"), wasted, "% at 50"),
    )
    after = worst(ours([*_CLOSED, *_OPEN], "computed_after"))
    yield Verdict(
        "W2",
        "predictions begun after the load had stopped, worst load",
        Goal("<=", 1),
        after,
        peer=beside(fifty("computed_after"), after, "at 50"),
    )


def _open_loops(table: Table) -> Iterator[Verdict]:
    for times, share in zip(overload.TIMES_CAPACITY, (95, 90), strict=True):
        load = overload.arriving(times)
        goodput = table.of("W2", OURS, load, "goodput")
        yield Verdict(
            "W2",
            f"goodput in an open loop at {times} x capacity, to the limit",
            Goal(">=", share, "%"),
            median_of(table.of("W2", OURS, load, "of_limit_percent")),
            peer=beside(best(table, "W2", load, "goodput"), median_of(goodput), "/s"),
            ceiling=figure(table.of("W2", LIMIT, LIMIT, "goodput"), "/s"),
        )
    slowest = worst(of_all(table, "W2", OURS, _OPEN, "p99_ms"))
    yield Verdict("W2", "p99 of answers in an open loop", Goal("<=", 1000 * TIMEOUT_SECONDS, "ms"), slowest)
    growth = worst(of_all(table, "W2", OURS, _OPEN, "rss_growth_mib"))
    yield Verdict("W2", "growth of RSS in an open loop", Goal("<=", 5, "MiB"), growth)


def _batching(table: Table) -> Iterator[Verdict]:
    many, of = point(64), partial(table.of, "W3")
    rps, p99, p50 = of(OURS, many, "rps"), of(OURS, many, "p99_ms"), of(OURS, point(1), "p50_ms")
    peer, quickest = best(table, "W3", many, "rps"), best(table, "W3", many, "p99_ms", higher=False)
    limit = of(LIMIT, LIMIT, "rps")
    yield Verdict(
        "W3",
        "requests/s of 64 clients, to the best peer's",
        Goal(">=", 3, "x"),
        ratio(rps, peer[1] if peer else None),
        peer=beside(peer, median_of(rps), "/s"),
        ceiling=figure(limit, "/s"),
    )
    yield Verdict(
        "W3",
        "p99 of 64 clients, to that of the peer with the most requests/s",
        Goal("<=", 0.5, "x"),
        ratio(p99, of(peer[0], many, "p99_ms")) if peer else math.nan,
        peer=beside(quickest, median_of(p99), "ms"),
    )
    model = of(LIMIT, LIMIT, "model_ms")
    yield Verdict(
        "W3",
        "p50 of a single client, over the model's own time",
        Goal("<=", 0.5, "ms"),
        median_of(p50) - median_of(model),
        peer=beside(best(table, "W3", point(1), "p50_ms", higher=False), median_of(p50), "ms"),
        ceiling=figure(model, "ms"),
    )


def _large(table: Table) -> Iterator[Verdict]:
    load, of = point(4), partial(table.of, "W4")
    rps, peer, reading = of(OURS, load, "rps"), best(table, "W4", load, "rps"), of(READING, load, "rps")
    yield Verdict(
        "W4",
        "requests/s of 4 clients, to the best peer's",
        Goal(">=", 2, "x"),
        ratio(rps, peer[1] if peer else None),
        peer=beside(peer, median_of(rps), "/s"),
    )
    yield Verdict(
        "W4",
        "requests/s of 4 clients, to uvicorn's that reads the same bytes",
        Goal(">=", 0.8, "x"),
        ratio(rps, reading),
        f"{shown(ratio(rps, reading))} x: {figure(rps, '/s')}",
        ceiling=figure(reading, "/s"),
    )
    above = of(OURS, peak.ONE, "peak_of_payload")
    yield Verdict(
        "W4",
        "peak memory of one request, to its payload",
        Goal("<=", 2.2, "x"),
        median_of(above),
        peer=beside(best(table, "W4", peak.ONE, "peak_of_payload", higher=False), median_of(above), "x"),
    )


def _footprint(table: Table) -> Iterator[Verdict]:
    of = partial(table.of, "W5")
    for value, what, unit, goal in (
        ("first_answer_seconds", "start to first answer, to the best peer's", "s", 0.7),
        ("rss_mib", "idle RSS, to the best peer's", "MiB", 0.7),
        ("installed_mib", "installed, to the smallest peer", "MiB", 1),
    ):
        mine, peer = of(OURS, footprint.ALONE, value), best(table, "W5", footprint.ALONE, value, higher=False)
        share = ratio(mine, peer[1] if peer else None)
        said = f"{shown(share)} x: {figure(mine, unit)}"
        yield Verdict("W5", what, Goal("<=", goal, "x"), share, said, beside(peer, median_of(mine), unit))


def _crashes(table: Table) -> Iterator[Verdict]:
    """In the worst round: one request that fails for another's sake is one too many."""

    def highest(value: str) -> float:
        spread = table.of("crash", OURS, crashes.MIX, value)
        return spread.highest if spread else math.nan

    def figures(value: str) -> str:
        found = [(table.of("crash", name, crashes.MIX, value), name) for name in table.servers("crash")]
        return ", ".join(f"{SERVERS[name].title} {spread}" for spread, name in found if spread and name != OURS)

    failed = highest("healthy_failed")
    said = f"{shown(failed)} of {shown(highest('healthy'))}, beside {shown(highest('kills'))} kills"
    yield Verdict("crash", "healthy requests that fail", Goal("<=", 0), failed, said, figures("healthy_failed"))
    for value, whole, what in (
        ("poison_typed", "poisoned", "poisoned requests answered 4xx"),
        ("kills_typed", "kills", "deadly requests answered with a typed 5xx"),
    ):
        share = ratio(table.of("crash", OURS, crashes.MIX, value), table.of("crash", OURS, crashes.MIX, whole))
        yield Verdict("crash", what, Goal(">=", 100, "%"), 100 * share)
    yield Verdict("crash", "requests in flight 1 s after the load", Goal("<=", 0), highest("gauge_after"))
    yield Verdict(
        "crash", "growth of RSS from the middle of the mix to the end", Goal("<=", 5, "MiB"), highest("rss_growth_mib")
    )
    yield Verdict(
        "crash",
        "longest time without an answer",
        Goal("<=", 2, "s"),
        highest("longest_silence_seconds"),
        peer=figures("longest_silence_seconds"),
    )
