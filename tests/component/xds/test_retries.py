"""What one pod could not take another one does: within a budget, and never what may have been executed."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from inflight_operator.xds.model import Retries, RouteSpec, Rule
from pods import Pod
from route_specs import backend, route_spec
from router_rig import Rig


def of(*pods: Pod | int, **changes: Any) -> RouteSpec:
    ports = [pod if isinstance(pod, int) else pod.port for pod in pods]
    return replace(route_spec(backend(ports=ports)), **changes)


@pytest.mark.parametrize(
    ("status", "code"), [pytest.param(429, "queue_full", id="full"), pytest.param(503, "not_ready", id="not ready")]
)
async def test_a_pod_that_refuses_is_not_the_last_word(rig: Rig, status: int, code: str) -> None:
    full, free = await rig.pod("full"), await rig.pod("free")
    full.refuses = (status, code)
    await rig.start(of(full, free))
    await rig.router()
    answers = [await rig.ask(method="POST", data=b"x" * 20_000) for _ in range(40)]
    assert Counter((a.status, a.body.get("pod")) for a in answers) == {(200, "free"): 40}
    assert full.requests > 5  # both are the least busy one: half of the requests came here first
    assert all(a.body["bytes"] == 20_000 for a in answers)


@pytest.mark.parametrize(
    "off", [pytest.param(Retries(elsewhere=False), id="one replica at most"), pytest.param(Retries(0), id="no budget")]
)
async def test_without_it_the_refusal_is_passed_on(rig: Rig, off: Retries) -> None:
    full, free = await rig.pod("full"), await rig.pod("free")
    full.refuses = (429, "queue_full")
    await rig.start(of(full, free, retries=off))
    await rig.router()
    answers = [await rig.ask() for _ in range(40)]
    refused = [a for a in answers if a.status == 429]
    assert 5 < len(refused) < 35
    assert {(a.body["code"], a.headers["x-inflight-retry-after-ms"]) for a in refused} == {("queue_full", "50")}


async def test_when_all_refuse_the_last_refusal_is_passed_on(rig: Rig) -> None:
    pods = [await rig.pod(name) for name in "ab"]
    for pod in pods:
        pod.refuses = (429, "queue_full")
    await rig.start(of(*pods))
    await rig.router()
    answers = [await rig.ask() for _ in range(10)]
    assert {(a.status, a.body["code"]) for a in answers} == {(429, "queue_full")}
    assert sum(pod.requests for pod in pods) == 60  # each is tried five times more, and no more


async def test_a_refusal_of_the_model_itself_is_its_answer(rig: Rig) -> None:
    """Nothing says that the request was not taken."""
    pods = [await rig.pod(name) for name in "ab"]
    for pod in pods:
        pod.refuses = (429, "")
    await rig.start(of(*pods))
    await rig.router()
    assert (await rig.ask()).status == 429
    assert sum(pod.requests for pod in pods) == 1


@pytest.mark.parametrize(("idempotent", "statuses"), [(True, {200}), (False, {200, 502})])
async def test_what_died_with_its_pod_is_tried_again_if_it_may_be(
    rig: Rig, idempotent: bool, statuses: set[int]
) -> None:
    dies, lives = await rig.pod("dies"), await rig.pod("lives")
    dies.lose_connection = True
    await rig.start(of(dies, lives, retries=Retries(idempotent=idempotent)))
    await rig.router()
    answers = [await rig.ask(method="POST", data=b"x") for _ in range(40)]
    assert {a.status for a in answers} == statuses
    assert (dies.requests + lives.requests == 40) is not idempotent


@contextmanager
def hole() -> Iterator[int]:
    """A port whose connections never come to anything, like those to a node that is gone."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        try:
            yield listening.getsockname()[1]
        finally:
            for one in waiting:
                one.close()


async def test_a_pod_that_takes_no_connection_is_not_the_least_busy_one(rig: Rig) -> None:
    """Requests that wait for their connection count, else it would draw all of them until the first one gives up."""
    pods = [await rig.pod(name, delay=0.02) for name in "abc"]
    took: list[float] = []

    async def ask() -> None:
        began = time.perf_counter()
        assert (await rig.ask()).status == 200
        took.append(time.perf_counter() - began)

    with hole() as port:
        await rig.start(of(port, *pods))
        await rig.router()
        tasks = []
        for _ in range(200):
            tasks.append(asyncio.create_task(ask()))
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
    # Of those that waited all timed out but once in the second that it is left out for.
    assert sum(t > 0.4 for t in took) < 20


async def test_the_time_that_a_request_has_is_told_and_kept(rig: Rig) -> None:
    pod = await rig.pod()
    await rig.start(of(pod, timeout_milliseconds=100))
    await rig.router()
    answer = await rig.ask(headers={"x-request-timeout-ms": "60000", "x-inflight-timeout-ms": "60000"})
    assert answer.body["headers"]["x-inflight-timeout-ms"] == "100", "nobody can raise it"
    assert answer.body["headers"]["x-request-timeout-ms"] == "60000", "who lowers it is heard by the server"
    pod.delay = 5
    began = time.monotonic()
    assert (await rig.ask()).status == 504
    assert 0.59 < time.monotonic() - began < 2  # a pod that doesn't keep to it has half a second more


async def test_a_request_that_takes_long_is_asked_of_another_pod_as_well(rig: Rig) -> None:
    """The first answer counts, and the loser is let go: nobody waits for it any more."""
    slow, fast = await rig.pod("slow", delay=2), await rig.pod("fast")
    await rig.start(of(slow, fast, retries=Retries(idempotent=True, hedged=True), hedge_milliseconds=100))
    await rig.router()
    began = time.monotonic()
    answers = [await rig.ask(method="POST", data=b"x" * 5_000) for _ in range(20)]
    assert {(a.status, a.body["pod"], a.body["bytes"]) for a in answers} == {(200, "fast", 5_000)}
    assert slow.requests > 3  # both were idle: half of the requests came here first
    assert time.monotonic() - began < 0.3 * slow.requests + 1
    assert slow.left > 3, "the losers' connections are closed"


async def test_what_goes_to_one_variant_alone_is_not_hedged_by_the_delay_of_the_others(rig: Rig) -> None:
    pods = [await rig.pod(name, delay=0.3) for name in "ab"]
    candidate = backend("candidate", [pod.port for pod in pods])
    stable = backend(ports=[(await rig.pod("stable")).port])
    spec = replace(route_spec(stable, candidate, weights=(100, 0)), retries=Retries(idempotent=True, hedged=True))
    await rig.start(replace(spec, hedge_milliseconds=50, rules=(Rule(candidate.name, header="x-qa"),)))
    await rig.router()
    assert (await rig.ask(headers={"x-qa": "1"})).status == 200
    assert (await rig.ask("/demo/digits/variants/candidate/v2", "x")).status == 200
    assert sum(pod.requests for pod in pods) == 2


async def test_without_it_the_slow_pods_answer_is_waited_for(rig: Rig) -> None:
    slow, fast = await rig.pod("slow", delay=0.5), await rig.pod("fast")
    await rig.start(of(slow, fast, retries=Retries(idempotent=True)))
    await rig.router()
    assert {(await rig.ask()).body["pod"] for _ in range(20)} == {"slow", "fast"}


async def test_the_pace_of_a_pod_is_told_from_the_routers_reports(rig: Rig) -> None:
    pod = await rig.pod(delay=0.1)
    spec = of(pod)
    await rig.start(spec)
    await rig.router()
    name = spec.backends[0].name
    assert rig.plane.load.paces("demo", name) is None, "nobody has asked for it before"
    async with rig.traffic(clients=4):
        await asyncio.sleep(5)
        found = rig.plane.load.paces("demo", name)
    assert found is not None
    (pace,) = found.values()
    assert 0.08 < pace.in_progress / pace.answered < 0.2
    assert pace.sent == pytest.approx(pace.answered, rel=0.15)
