"""Requests that are no HTTP, or hide another one, of every kind: the right 4xx, no 5xx, and others notice nothing."""

from __future__ import annotations

import asyncio
from random import Random

from benchmarks.traffic.edge import answer
from benchmarks.traffic.malformed import KINDS, expected, malformed
from route_specs import backend, route_spec
from router_rig import Rig


async def test_malformed_requests_are_refused_and_disturb_nobody(rig: Rig) -> None:
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    await rig.router()
    chance = Random(7)  # noqa: S311 - the same bytes every time
    cases = [malformed(chance, "digits.demo") for _ in range(1_000)]
    assert {kind for kind, _ in cases} == set(KINDS)
    todo, wrong = iter(cases), list[tuple[str, int, bytes]]()

    async def client() -> None:
        for kind, data in todo:
            status = await answer("127.0.0.1", rig.port, data)
            if not expected(kind, status):
                wrong.append((kind, status, data[:100]))

    async with rig.traffic(clients=2) as seen:
        await asyncio.gather(*(client() for _ in range(16)))
    assert wrong == []
    assert set(seen) == {"200 pod"}
