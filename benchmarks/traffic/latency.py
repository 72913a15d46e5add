"""What the router adds to the latency at a fixed rate, and how many requests it can pass on.

`h2load` asks over HTTP/1.1 from within the cluster's network, a pod itself and the same pod through a router in turn.
At the fixed rate its connections start one after the other, so that the requests come evenly and not 64 at once. Beside
the router are two Envoys with static configurations in pods of their own, `static_envoy`: what the machine itself adds,
and how many requests could pass.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.control.result import Result
from benchmarks.control.routers import SELECTOR
from benchmarks.control.world import NAMESPACE, World
from benchmarks.traffic import static_envoy
from benchmarks.traffic.prober import serving, waiting
from inflight_demo.cluster import SYSTEM
from inflight_demo.console import Console
from inflight_probe import pods
from inflight_probe.infer import request_body
from inflight_probe.scaling import OWNER
from inflight_probe.stats import percentile

_CONNECTIONS, _RATE = 64, 1_000


async def latency(world: World, console: Console) -> list[Result]:
    """1,000 requests/s over 64 connections, nine rounds of each path; then as many as there can be."""
    name, rounds, seconds = "latency", world.some(9, 1), world.some(5, 2)
    infer = f"/v2/models/{name}/infer"
    path = f"/{NAMESPACE}/{name}{infer}"
    async with serving(world, waiting(name, {"main": 100}, 1, wait=0)):
        pod = (await world.kube.list_all("Pod", NAMESPACE, f"{OWNER}={name}"))[0]["status"]["podIP"]
        router = (await world.kube.list_all("Pod", SYSTEM, SELECTOR))[0]
        direct, routed = f"http://{pod}:8080{infer}", f"http://{router['status']['podIP']}:8080{path}"
        limit: dict[str, list[float]] = {"router": [], "equal": [], "bare": []}
        cost: dict[str, list[float]] = {who: [] for who in limit}
        async with (
            static_envoy.running(world, "equal", static_envoy.equal(NAMESPACE, name, pod, 8080)) as equal,
            static_envoy.running(world, "bare", static_envoy.bare(pod, 8080)) as bare,
        ):
            urls = {"router": routed, "equal": equal.url + path, "bare": bare.url + infer}
            uids = {"router": router["metadata"]["uid"], "equal": equal.uid, "bare": bare.uid}
            even = {"pod": direct, "router": routed, "bare": urls["bare"]}
            fixed: dict[str, list[Sequence[float]]] = {who: [] for who in even}
            for number in range(rounds):
                for who in _turned(list(even), number):
                    fixed[who].append(await _ask(even[who], seconds, rate=_RATE))
                for who in _turned(list(urls), number):
                    before = pods.cpu_seconds(uids[who])
                    answered = len(await _ask(urls[who], seconds))
                    limit[who].append(answered / seconds)
                    cost[who].append(1e6 * (pods.cpu_seconds(uids[who]) - before) / answered)
                console.progress(number + 1, rounds, "rounds")
    added = {who: {q: _added(fixed["pod"], fixed[who], q) for q in (50, 99)} for who in ("router", "bare")}
    console.say(f"the pod itself: p99 {[round(percentile(d, 99), 2) for d in fixed['pod']]} ms")
    return [_result(world, added, limit, cost)]


def _added(direct: Sequence[Sequence[float]], routed: Sequence[Sequence[float]], q: float) -> list[float]:
    """Milliseconds, by round."""
    return [percentile(r, q) - percentile(d, q) for d, r in zip(direct, routed, strict=True)]


def _turned(names: list[str], number: int) -> list[str]:
    """Each is the first one in some rounds: the machine has been at rest before."""
    first = number % len(names)
    return names[first:] + names[:first]


_Found = Mapping[str, Sequence[float]]


def _result(world: World, added: Mapping[str, Mapping[int, Sequence[float]]], limit: _Found, cost: _Found) -> Result:
    p50, p99 = (median(found) for found in added["router"].values())
    bare = [median(found) for found in added["bare"].values()]
    of = {who: median(r / t for r, t in zip(limit["router"], limit[who], strict=True)) for who in ("equal", "bare")}
    return Result(
        suite="traffic",
        row="latency",
        what="the router's added latency at 1,000 requests/s over 64 connections; its limit beside that of an Envoy "
        "with an equal static configuration",
        goal="p50 <= 0.4 ms, p99 <= 2 ms; >= 0.9x",
        measured=f"p50 {p50:.2f} ms, p99 {p99:.2f} ms (medians of {len(limit['router'])} rounds in turn; a bare Envoy "
        f"adds {bare[0]:.2f} and {bare[1]:.2f} ms here); "
        f"{median(limit['router']):,.0f}/s, {of['equal']:.2f}x of it, {of['bare']:.2f}x of a bare Envoy; "
        f"CPU of a request {' / '.join(f'{median(found):.0f}' for found in cost.values())} us",
        kept=p50 <= 0.4 and p99 <= 2 and of["equal"] >= 0.9,
        data={"added_ms": added, "limit_per_s": limit, "cpu_us": cost},
        quick=world.quick,
    )


async def _ask(url: str, seconds: int, rate: int | None = None) -> list[float]:
    """Milliseconds of every right answer: for so long, or so many as come in that time at a rate. AssertionError when
    an answer was not right."""
    with tempfile.TemporaryDirectory() as directory:
        log, body = Path(directory) / "log", Path(directory) / "body"
        body.write_bytes(request_body("x", [[1.0]]))
        options = ["--h1", "-t1", f"-c{_CONNECTIONS}", f"--log-file={log}", f"--data={body}"]
        if rate:  # one connection more each millisecond, and then as many requests a second on each of them
            options += [f"-n{rate * seconds}", "-r1", "--rate-period=1ms", f"--rps={rate / _CONNECTIONS}"]
        else:
            options += [f"-D{seconds}"]
        options += ["-H", "content-type: application/json", url]
        process = await asyncio.create_subprocess_exec("h2load", *options, stdout=asyncio.subprocess.DEVNULL)
        assert await asyncio.wait_for(process.wait(), 6 * seconds) == 0, f"h2load {url} failed"
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    assert rows, f"nothing was answered by {url}"
    assert {row[1] for row in rows} == {"200"}, f"{url} answered { ({row[1] for row in rows}) }"
    return [int(row[2]) / 1000 for row in rows]
