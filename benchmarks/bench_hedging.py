"""One of five pods ten times slower, on loopback: `python -m benchmarks.bench_hedging [--seconds 60]`.

A real Envoy, five pods of four requests at a time that take 40 ms (exponentially spread), one of them 400 ms, and an
open loop at half of what five good ones could do. Four ways in turn, each a few times: as it is; without the slow pod,
which is what an ejection would do if it knew; ejected, as slow pods are found and looked at again (degraded) by the
operator's own decisions from the router's own reports, without a hedge; hedged, with slow pods degraded.
Then the last one with more than the pods can do.
Prints a table; `--json FILE` keeps the numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "tests" / "support")]

import aiohttp  # noqa: E402
from aiohttp import web  # noqa: E402

from inflight_operator.decide import tail  # noqa: E402
from inflight_operator.xds.model import Endpoint, Retries, RouteSpec  # noqa: E402
from route_specs import backend, route_spec  # noqa: E402
from router_rig import Rig  # noqa: E402

SECONDS, SLOWER, PODS, SLOTS = 0.04, 10, 5, 4
CAPACITY = PODS * SLOTS / SECONDS
BUDGET = 0.05
WAYS = ("as it is", "without the slow pod", "ejected", "hedged")


class Queue:
    """A pod that works on SLOTS requests at a time; the rest waits. Who leaves before his turn costs nothing."""

    def __init__(self, seconds: float, chance: random.Random) -> None:
        self.seconds, self.chance, self.turn, self.began = seconds, chance, asyncio.Semaphore(SLOTS), 0

    async def answer(self, _request: web.Request) -> web.Response:
        async with self.turn:
            self.began += 1
            await asyncio.sleep(self.chance.expovariate(1 / self.seconds))
        return web.Response(text="done")


async def pod(stack: AsyncExitStack, number: int, seconds: float, chance: random.Random) -> tuple[Endpoint, Queue]:
    queue = Queue(seconds, chance)
    application = web.Application()
    application.router.add_get("/", queue.answer)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    address = f"127.0.0.{10 + number}"  # the reports tell pods apart by their address
    await web.TCPSite(runner, address, 0).start()
    return Endpoint(address, runner.addresses[0][1]), queue


async def steer(rig: Rig, spec: RouteSpec, delays: list[float | None], aside: list[int]) -> None:
    """What the operator does every five seconds; `delays` and how many stand `aside` are what it decided on."""
    decided = tail.Tail()
    (there,) = spec.backends
    addresses = frozenset(end.address for end in there.endpoints)
    while True:
        now = time.monotonic()
        paces = rig.plane.load.paces(spec.namespace, there.name)
        decided = tail.decide(decided, paces, addresses, slots=SLOTS, budget=BUDGET, now=now)
        gone, hedge = decided.away(addresses, now), decided.hedge
        after = round(1000 * hedge.after) if hedge.after and spec.retries.hedged else None
        rig.set(replace(spec, backends=(replace(there, degraded=gone),), hedge_milliseconds=after))
        delays.append(hedge.after)
        aside.append(len(gone))
        await asyncio.sleep(5)


async def measure(way: str, seconds: float, seed: int, load: float = 0.5) -> dict[str, float | str]:
    """One way, after ten seconds in which nothing is counted."""
    chance = random.Random(seed)  # noqa: S311
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
            rig = Rig(Path(directory), stack, http)
            pods = [await pod(stack, n, SECONDS * (SLOWER if n == 0 else 1), chance) for n in range(PODS)]
            ends = frozenset(end for end, _ in (pods[1:] if way == WAYS[1] else pods))
            spec = replace(
                route_spec(replace(backend(timeout=10_000), endpoints=ends)),
                retries=Retries(idempotent=True, hedged=way == "hedged"),
            )
            await rig.start(spec)
            await rig.router()
            delays: list[float | None] = []
            aside: list[int] = []
            steering = asyncio.create_task(steer(rig, spec, delays, aside)) if way in WAYS[2:] else None
            took: list[float] = []
            failed = 0

            async def ask(counts: bool) -> None:
                nonlocal failed
                began = time.perf_counter()
                async with http.get(f"http://127.0.0.1:{rig.port}/", headers={"Host": "digits.demo"}) as answer:
                    await answer.read()
                if counts:
                    took.append(time.perf_counter() - began)
                    failed += answer.status != 200

            tasks = []
            start = due = time.perf_counter()
            warm, executed = start + 20, 0
            while due < start + 20 + seconds:
                due += chance.expovariate(load * CAPACITY)
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if due > warm and not executed:
                    executed = sum(queue.began for _, queue in pods)
                tasks.append(asyncio.create_task(ask(due > warm)))
            await asyncio.gather(*tasks)
            if steering:
                steering.cancel()
            extra = (sum(queue.began for _, queue in pods) - executed) / len(took) - 1
            took.sort()
            return {
                "way": way,
                "requests": len(took),
                "failed": failed,
                "p50 ms": round(1000 * took[len(took) // 2], 1),
                "p99 ms": round(1000 * took[int(len(took) * 0.99)], 1),
                "executed twice %": round(100 * extra, 2),
                "delays ms": " ".join(f"{1000 * d:.0f}" if d else "off" for d in delays[4:]),
                "degraded": " ".join(map(str, aside[4:])),
            }


async def main(seconds: float, rounds: int) -> list[dict[str, float | str]]:
    found = []
    for number in range(rounds):
        for way in WAYS:
            found.append(await measure(way, seconds, number))
            print(" | ".join(f"{k}: {v}" for k, v in found[-1].items()), flush=True)
    found.append(await measure("hedged", seconds, 0, load=1.1) | {"way": "hedged, overloaded"})
    print(" | ".join(f"{k}: {v}" for k, v in found[-1].items()), flush=True)
    middle = {way: statistics.median(float(f["p99 ms"]) for f in found if f["way"] == way) for way in WAYS}
    for way in WAYS[:3]:
        print(f"p99 hedged / {way}: {middle['hedged'] / middle[way]:.2f}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    numbers = asyncio.run(main(options.seconds, options.rounds))
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")
