"""Slow pods that are told to the routers as degraded: who is asked then."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from inflight_operator.xds.model import Endpoint, RouteSpec
from pods import Pod
from route_specs import backend, route_spec
from router_rig import Rig


async def some(rig: Rig, count: int) -> list[Pod]:
    """Pods with an address each."""
    return [await rig.pod(f"pod-{n}", address=f"127.0.0.{10 + n}") for n in range(count)]


def of(pods: Sequence[Pod], *degraded: Pod) -> RouteSpec:
    there = frozenset(Endpoint(pod.address, pod.port) for pod in pods)
    slow = frozenset(pod.address for pod in degraded)
    return route_spec(replace(backend(timeout=5000), endpoints=there, degraded=slow))


async def asked(rig: Rig, count: int) -> Counter[str]:
    """Who answers, one request after the other."""
    return Counter([(await rig.ask()).body["pod"] for _ in range(count)])


@pytest.mark.parametrize(
    ("pods", "degraded", "low", "high"),
    [
        pytest.param(4, 1, 0, 0, id="three of four are enough"),
        pytest.param(3, 1, 5, 40, id="of three it gets what two thirds times 1.4 leave: 7 %"),
        pytest.param(2, 2, 300, 300, id="all are degraded: all are asked"),
    ],
)
async def test_a_degraded_pod_gets_what_the_others_cannot_take(
    rig: Rig, pods: int, degraded: int, low: int, high: int
) -> None:
    there = await some(rig, pods)
    await rig.start(of(there, *there[:degraded]))
    await rig.router()
    found = await asked(rig, 300)
    assert found.total() == 300
    assert low <= sum(found[pod.name] for pod in there[:degraded]) <= high


async def test_a_pod_that_becomes_degraded_answers_what_it_has_and_comes_back(rig: Rig) -> None:
    there = await some(rig, 4)
    there[0].delay = 1.0
    await rig.start(of(there))
    await rig.router()
    held = [asyncio.create_task(rig.ask()) for _ in range(8)]
    await rig.until(lambda: there[0].open)
    rig.set(of(there, there[0]))
    await rig.until(lambda: rig.plane.programmed(("demo", "digits")).acknowledged)
    assert (await asked(rig, 40))["pod-0"] == 0
    assert {answer.status for answer in await asyncio.gather(*held)} == {200}, "what it had it has answered"
    there[0].delay = 0.0
    rig.set(of(there))
    await rig.until(lambda: rig.plane.programmed(("demo", "digits")).acknowledged)
    assert (await asked(rig, 100))["pod-0"] > 0
