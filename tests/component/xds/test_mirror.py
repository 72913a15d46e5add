"""Copies of requests for a variant that answers nobody, on a real Envoy: users notice nothing of them."""

from __future__ import annotations

import asyncio
import io
import math
import time
from dataclasses import dataclass, replace

import pytest

from inflight_operator.xds.model import Mirror, RouteSpec, Rule
from pods import Pod
from ports import free_port
from route_specs import backend, route_spec
from router_rig import Rig


@dataclass
class Shadowed:
    """A ModelDeployment with a shadow, and the pods of its variants."""

    spec: RouteSpec
    stable: Pod
    shadow: Pod


@pytest.fixture
async def two(rig: Rig) -> Shadowed:
    stable, shadow = await rig.pod("stable"), await rig.pod("shadow")
    return Shadowed(
        route_spec(backend(ports=[stable.port]), backend("shadow", [shadow.port]), weights=(100, 0)), stable, shadow
    )


def mirrored(two: Shadowed, percent: int = 100, most: int = 32) -> RouteSpec:
    return replace(two.spec, mirror=Mirror(two.spec.backends[1].name, percent, most))


@pytest.mark.parametrize(("host", "path"), [("digits.demo", "/v2/a?b=c"), ("router", "/demo/digits/v2/a?b=c")])
async def test_the_shadow_gets_what_the_user_sent_and_the_user_what_the_other_says(
    rig: Rig, two: Shadowed, host: str, path: str
) -> None:
    await rig.start(mirrored(two))
    await rig.router()
    forged = {"x-inflight-mirrored": "1"}
    answer = await rig.ask(path, host, method="POST", data=b"question", headers=forged)
    assert (answer.status, answer.body["pod"], answer.headers["x-inflight-variant"]) == (200, "stable", "stable")
    await rig.until(lambda: two.shadow.requests)
    copy, original = two.shadow.last, two.stable.last
    assert (copy["path"], copy["body"]) == ("/v2/a?b=c", "question")
    assert (copy["host"], copy["x-request-id"]) == (original["host"], original["x-request-id"])
    assert copy["x-inflight-mirrored"] == "1"
    assert "x-inflight-mirrored" not in original


@pytest.mark.parametrize("size", [300_000, 5_000_000])
async def test_a_large_body_is_copied_whole(rig: Rig, two: Shadowed, size: int) -> None:
    """Larger than what is kept for a retry."""
    await rig.start(mirrored(two))
    await rig.router()
    for _ in range(5):
        answer = await rig.ask("/v2", "digits.demo", method="POST", data=io.BytesIO(b"x" * size))
        assert (answer.status, answer.body["bytes"]) == (200, size)
    await rig.until(lambda: two.shadow.requests == 5 and not two.shadow.open)
    assert len(two.shadow.last["body"]) == size


async def test_as_many_are_copied_as_it_says(rig: Rig, two: Shadowed) -> None:
    await rig.start(mirrored(two, 30))
    await rig.router()
    for _ in range(400):
        await rig.ask("/v2", "digits.demo")
    await asyncio.sleep(0.1)
    assert two.stable.requests == 400
    assert abs(two.shadow.requests - 120) <= 4 * math.sqrt(400 * 0.3 * 0.7)


async def test_what_is_meant_for_one_variant_is_not_copied(rig: Rig, two: Shadowed) -> None:
    stable = two.spec.backends[0].name
    await rig.start(replace(mirrored(two), rules=(Rule(stable, "x-qa", "1"),)))
    await rig.router()
    await rig.ask("/v2", "digits.demo", headers={"x-qa": "1"})
    await rig.ask("/demo/digits/variants/stable/v2", "router")
    await asyncio.sleep(0.1)
    assert (two.stable.requests, two.shadow.requests) == (2, 0)


async def test_a_slow_shadow_delays_nobody_and_gets_no_more_than_its_limit(rig: Rig, two: Shadowed) -> None:
    """Without the limit it had all of them: 40."""
    two.shadow.delay = 1.0
    await rig.start(mirrored(two, most=3))
    await rig.router()
    began = time.monotonic()
    answers = await asyncio.gather(*(rig.ask("/v2", "digits.demo") for _ in range(40)))
    assert time.monotonic() - began < 1.0
    assert {(answer.status, answer.body["pod"]) for answer in answers} == {(200, "stable")}
    assert 1 <= two.shadow.most <= 3


@pytest.mark.parametrize("ports", [pytest.param([], id="no pod"), pytest.param([free_port()], id="a dead one")])
async def test_a_shadow_that_is_not_there_is_missed_by_nobody(rig: Rig, two: Shadowed, ports: list[int]) -> None:
    spec = route_spec(two.spec.backends[0], backend("shadow", ports), weights=(100, 0))
    await rig.start(replace(spec, mirror=Mirror(spec.backends[1].name, 100, 32)))
    await rig.router()
    for _ in range(50):
        answer = await rig.ask("/v2", "digits.demo")
        assert (answer.status, answer.body["pod"]) == (200, "stable")


async def test_a_shadow_that_loses_connections_is_missed_by_nobody(rig: Rig, two: Shadowed) -> None:
    two.shadow.lose_connection = True
    await rig.start(mirrored(two))
    await rig.router()
    for _ in range(50):
        assert (await rig.ask("/v2", "digits.demo", method="POST", data=b"x" * 1000)).status == 200


async def test_a_change_of_the_shadow_loses_no_request(rig: Rig, two: Shadowed) -> None:
    await rig.start(two.spec)
    await rig.router()
    async with rig.traffic(path="/v2") as seen:
        for percent in (100, 10, 100):
            await rig.programmed(rig.set(mirrored(two, percent)))
            await asyncio.sleep(0.1)
        await rig.programmed(rig.set(two.spec))
        await asyncio.sleep(0.2)
        copies = two.shadow.requests
        await asyncio.sleep(0.2)
    assert set(seen) == {"200 stable"}
    assert copies == two.shadow.requests, "none any more"
