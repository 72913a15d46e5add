"""Rows that need real routers and no cluster: one slow pod, and a thousand ModelDeployments."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks import bench_hedging, bench_xds
from benchmarks.control.result import Result
from benchmarks.control.world import World
from inflight_demo.console import Console

_GROWING = (100, 250, 500, 1_000)


async def hedged(world: World, console: Console) -> list[Result]:
    """One of five pods ten times slower, four ways in turn; then more load than the pods can bear."""
    seconds, rounds = world.some(40, 5), world.some(3, 1)
    found: list[dict[str, Any]] = []
    for number in range(rounds):
        for way in bench_hedging.WAYS:
            found.append(await bench_hedging.measure(way, seconds, number))
            console.say(str(found[-1]))
    over = await bench_hedging.measure("hedged", seconds, 0, load=1.1)
    console.say(f"overloaded: {over}")
    p99 = {way: median(f["p99 ms"] for f in found if f["way"] == way) for way in bench_hedging.WAYS}
    plain, without, ejected, ours = (p99[way] for way in bench_hedging.WAYS)
    twice = [f["executed twice %"] for f in found if f["way"] == bench_hedging.WAYS[3]]
    off = set(str(over["delays ms"]).split()) <= {"off"}
    measured = (
        f"p99 {ours:.0f} ms: {ours / plain:.2f}x of {plain:.0f} ms without, {ours / ejected:.2f}x of {ejected:.0f} ms "
        f"ejected, {ours / without:.2f}x of {without:.0f} ms had it never been there; "
    )
    measured += f"{max(twice):.1f} % executed twice at most; overloaded: {'off' if off else 'not off'}"
    return [
        Result(
            suite="traffic",
            row="hedged",
            what="one of 5 pods 10x slow at 50 % load, idempotent (one Envoy and pods on loopback, Poisson arrivals)",
            goal="p99 <= 0.5x of without, <= 0.7x of ejection; <= 5 % twice; at overload none",
            measured=measured,
            kept=ours <= 0.5 * plain and ours <= 0.7 * ejected and max(twice) <= 5 and off,
            data={"runs": found, "overloaded": over},
            quick=world.quick,
        )
    ]


async def fleet(world: World, console: Console) -> list[Result]:
    """A weight of one ModelDeployment of 1,000 with two variants each, and what the growth from 100 costs."""
    grown = []
    for count in _GROWING if not world.quick else (5, 10):
        grown.append(await bench_xds.fresh(lambda rig, n=count: bench_xds.changes(rig, n, world.some(200, 5), None)))  # type: ignore[misc]
        console.say(str(grown[-1]))
    few, many = grown[0], grown[-1]
    rss = bench_xds.memory(many["models"])["with all models MiB"]
    before = (
        f"with {few['models']}: {few['weight ms p99']:.0f} ms, {few['weight CPU ms']:.0f} ms, {few['router MiB']} MiB"
    )
    p99, cpu, router = many["weight ms p99"], many["weight CPU ms"], many["router MiB"]
    return [
        Result(
            suite="traffic",
            row="fleet",
            what="1,000 ModelDeployments of two variants, one weight changed (control plane, two Envoys, on loopback)",
            goal="p99 <= 150 ms; operator CPU <= 20 ms, its RSS <= 400 MiB; router <= 250 MiB",
            measured=f"p99 {p99:.0f} ms; {cpu:.0f} ms, control plane {rss:.0f} MiB; {router:.0f} MiB ({before})",
            kept=p99 <= 150 and cpu <= 20 and rss <= 400 and router <= 250,
            data={"grown": grown, "rss_mib": rss},
            quick=world.quick,
        )
    ]
