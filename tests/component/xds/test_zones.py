"""Routers in several zones: each keeps to the pods of its own as far as that is fair, and no further."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from inflight_operator.xds.model import Backend, Endpoint
from inflight_operator.xds.zones import LEAST
from pods import Pod
from route_specs import backend, route_spec
from router_rig import Rig

pytestmark = pytest.mark.timeout(60)
ROUTERS = {"router-0": Endpoint("10.9.0.1", 8080, "a"), "router-1": Endpoint("10.9.0.2", 8080, "b")}
"""One in each zone. It is the one in zone a that is asked here."""


async def pods(rig: Rig, **zones: int) -> dict[str, list[Pod]]:
    """So many in each zone, called by it."""
    return {zone: [await rig.pod(zone) for _ in range(count)] for zone, count in zones.items()}


def lying(zones: dict[str, list[Pod]], variant: str = "stable") -> Backend:
    endpoints = frozenset(Endpoint("127.0.0.1", pod.port, zone) for zone, there in zones.items() for pod in there)
    return replace(backend(variant), endpoints=endpoints)


async def asked(rig: Rig, count: int) -> Counter[str]:
    """The zones of those who answered so many requests."""
    seen: Counter[str] = Counter()

    async def client() -> None:
        for _ in range(count // 10):
            answer = await rig.ask()
            seen[answer.body["pod"] if answer.status == 200 else str(answer.status)] += 1

    await asyncio.gather(*(client() for _ in range(10)))
    return seen


async def start(rig: Rig, *backends: Backend, weights: tuple[int, ...] = (100,), zone: str = "a") -> None:
    await rig.start(route_spec(*backends, weights=weights))
    rig.plane.serve_from(ROUTERS)
    await rig.router(zone=zone)


async def test_a_router_keeps_to_its_own_zone(rig: Rig) -> None:
    await start(rig, lying(await pods(rig, a=LEAST, b=LEAST)))
    assert await asked(rig, 500) == {"a": 500}


@pytest.mark.parametrize(
    ("zones", "zone"),
    [
        pytest.param({"a": LEAST - 1, "b": LEAST}, "a", id="too few pods"),
        pytest.param({"a": LEAST, "b": LEAST}, "", id="a router that does not know where it is"),
        pytest.param({"a": LEAST, "b": LEAST}, "c", id="a zone without routers and pods"),
    ],
)
async def test_otherwise_it_sends_to_all_alike(rig: Rig, zones: dict[str, int], zone: str) -> None:
    there = await pods(rig, **zones)
    await start(rig, lying(there), zone=zone)
    await asked(rig, 1000)
    shares = [pod.requests for each in there.values() for pod in each]
    assert min(shares) > 0.4 * 1000 / len(shares)


async def test_a_zone_with_more_than_its_share_of_requests_gives_away_what_is_too_much(rig: Rig) -> None:
    """Half of the requests come here, to a quarter of the pods: so half of them go on to the other zone."""
    await start(rig, lying(await pods(rig, a=LEAST, b=3 * LEAST)))
    seen = await asked(rig, 2000)
    assert seen["a"] == pytest.approx(1000, abs=5 * (2000 / 4) ** 0.5)


async def test_the_split_between_variants_stays_exact(rig: Rig) -> None:
    """Although the candidate lies almost wholly elsewhere."""
    stable, candidate = await pods(rig, a=LEAST, b=LEAST), await pods(rig, a=LEAST, b=2 * LEAST)
    for each in (pod for there in candidate.values() for pod in there):
        each.name = "candidate"
    await start(rig, lying(stable), lying(candidate, "candidate"), weights=(80, 20))
    seen = await asked(rig, 4000)
    assert seen["candidate"] == pytest.approx(800, abs=4 * (4000 * 0.8 * 0.2) ** 0.5)
    assert seen["a"] == 4000 - seen["candidate"]


async def test_when_the_own_zone_dies_the_other_one_serves(rig: Rig) -> None:
    there = await pods(rig, b=LEAST)
    dead = [Endpoint("127.0.0.1", port, "a") for port in range(1, LEAST + 1)]
    await start(rig, replace(lying(there), endpoints=lying(there).endpoints | set(dead)))
    assert await asked(rig, 300) == {"b": 300}


async def test_pods_come_and_go_across_the_threshold_without_a_lost_request(rig: Rig) -> None:
    """The same pods are told with their zones, without, and with them again."""
    there = await pods(rig, a=LEAST, b=LEAST)
    fewer = {"a": there["a"][:-1], "b": there["b"]}
    await start(rig, lying(there))
    await rig.router("router-1", zone="b")
    async with rig.traffic() as seen:
        for zones in (fewer, there) * 5:
            key = rig.set(route_spec(lying(zones)))
            assert (await rig.programmed(key)).acknowledged
            await asyncio.sleep(0.05)
    assert set(seen) <= {"200 a", "200 b"}


async def test_demand_is_that_of_all_zones(rig: Rig) -> None:
    """Envoy reports its load by zone."""
    there = await pods(rig, a=LEAST, b=3 * LEAST)
    for pod in (pod for each in there.values() for pod in each):
        pod.delay = 0.2
    await start(rig, lying(there))
    rig.plane.load.expect(1)
    async with rig.traffic(clients=8):
        await rig.until(lambda: (rig.plane.load.in_flight("demo", lying(there).name) or 0) > 6.5, 15)
