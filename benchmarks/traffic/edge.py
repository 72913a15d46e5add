"""What the router's clients do to each other: a flood from one tenant, and bytes that are not HTTP."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from dataclasses import replace
from urllib.parse import urlsplit

from benchmarks.control.result import Result
from benchmarks.control.world import NAMESPACE, World
from benchmarks.traffic.malformed import CUT_OFF, WAITS, expected, malformed
from benchmarks.traffic.prober import Probe, lost, probing, serving, waiting
from inflight_demo.console import Console

_FLOOD = 800.0
"""Ten times what two pods of one request at a time of 25 ms can do."""
_OTHERS = 50.0
_PATIENCE_SECONDS = 3.0
"""Less than the router's, which answers 408 after ten."""


async def flooded(world: World, console: Console) -> list[Result]:
    """One ModelDeployment is asked ten times as much as it can do; another one beside it notices nothing."""
    flood = waiting("flood", {"main": 100}, 2, wait=25, concurrency=1)
    seconds = world.some(60, 5)
    async with serving(world, flood), serving(world, waiting("calm", {"main": 100}, 2)):
        async with probing(world, "calm", rate=_OTHERS) as calm, probing(world, "flood", rate=_FLOOD) as other:
            await asyncio.sleep(seconds)
        console.say(f"the flood: {dict(other.run.why())}, {len(other.run.ok)} answered")
    what = f"one tenant at {_FLOOD:.0f}/s, ten times what it can do, another one at {_OTHERS:.0f}/s"
    return [_others(world, "flooded", what, calm, other)]


async def flooded_off(world: World, console: Console) -> list[Result]:
    """The same without what keeps tenants apart: both ask one ModelDeployment, and share its queue. It has to fail."""
    flood = waiting("flood", {"main": 100}, 2, wait=25, concurrency=1)
    seconds = world.some(60, 5)
    async with (
        serving(world, flood),
        probing(world, "flood", rate=_OTHERS) as calm,
        probing(world, "flood", rate=_FLOOD) as other,
    ):
        await asyncio.sleep(seconds)
    console.say(f"the flood: {dict(other.run.why())}, {len(other.run.ok)} answered")
    result = _others(world, "flooded-off", "the same where both ask one ModelDeployment", calm, other)
    return [replace(result, goal="fails", kept=not result.kept)]


def _others(world: World, row: str, what: str, calm: Probe, other: Probe) -> Result:
    return lost(
        row,
        what,
        calm,
        world,
        at_least=int(_OTHERS * 60 * 0.95),
        allowed=int(_OTHERS * 60 / 1000),
        flood={"answered": len(other.run.ok), **other.run.why()},
    )


async def fuzzed(world: World, console: Console) -> list[Result]:
    """Malformed requests, each on a connection of its own: 4xx or cut off, never a 5xx; nobody else is disturbed."""
    count, seen, wrong = world.some(100_000, 500), Counter[str](), []
    host = urlsplit(world.router)
    chance = random.Random(20261127)  # noqa: S311 - the same bytes every time  # nosec B311
    name = "fuzzed"
    async with serving(world, waiting(name, {"main": 100}, 2)), probing(world, name, rate=50) as probe:
        cases = iter([malformed(chance, f"{name}.{NAMESPACE}") for _ in range(count)])

        async def client() -> None:
            for kind, data in cases:
                status = await answer(str(host.hostname), int(host.port or 80), data)
                seen[f"{kind}: {status}"] += 1
                if not expected(kind, status):
                    wrong.append((kind, status, repr(data[:200])))
                if seen.total() % 5000 == 0:
                    console.progress(seen.total(), count, "malformed requests")

        await asyncio.gather(*(client() for _ in range(64)))
    bad = len(wrong)
    return [
        Result(
            suite="traffic",
            row=name,
            what=f"{count:,} malformed requests through the router, another tenant at 50/s",
            goal="each gets the right 4xx or is cut off, no 5xx; 0 of the other tenant's fail",
            measured=f"{bad} wrong, {len(probe.run.failed)} of {len(probe.run.outcomes):,} others failed",
            kept=not wrong and not probe.run.failed,
            data={"seen": dict(sorted(seen.items())), "wrong": wrong[:50], "why": dict(probe.run.why())},
            quick=world.quick,
        )
    ]


async def answer(host: str, port: int, data: bytes) -> int:
    """The status of the answer to these bytes; CUT_OFF: the connection was closed without one, WAITS: it is open."""
    reader, writer = await asyncio.open_connection(host, port)
    # Closed by a reset: 100,000 connections that linger are more than there are ports.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    try:
        writer.write(data)
        await writer.drain()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            line = await reader.readline()
        return int(line.split()[1]) if line.startswith(b"HTTP/1.") else CUT_OFF
    except TimeoutError:
        return WAITS
    except ConnectionError:
        return CUT_OFF
    finally:
        writer.close()
