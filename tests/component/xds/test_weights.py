"""What real routers do with weights that come beside their routes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from inflight_operator.xds.model import RouteSpec, Rule
from inflight_operator.xds.session import Session
from inflight_operator.xds.wire import RUNTIME
from route_specs import backend, route_spec
from router_rig import Rig

KEY = ("demo", "digits")
RDS = r"http\.inflight\.rds\..*\.config_reload$"


async def split(rig: Rig, *weights: int) -> RouteSpec:
    pods = [await rig.pod("a"), await rig.pod("b")]
    return route_spec(*(backend(pod.name, [pod.port]) for pod in pods), weights=weights)


def weighing(spec: RouteSpec, *weights: int) -> RouteSpec:
    named = zip(spec.backends, weights, strict=True)
    return replace(spec, split=tuple((b.name, weight) for b, weight in named if weight))


@pytest.mark.parametrize("path", ["/", "/demo/digits/"])
async def test_a_weight_is_in_force_without_other_routes(rig: Rig, path: str) -> None:
    spec = await split(rig, 100, 0)
    await rig.start(spec)
    router = await rig.router()
    before = await router.stats(RDS)
    assert before
    for weights in [(0, 100), (100, 0), (50, 50), (0, 100)]:
        rig.set(weighing(spec, *weights))
        assert (await rig.programmed(KEY)).acknowledged
        seen = {(await rig.ask(path)).headers["x-inflight-variant"] for _ in range(60)}
        assert seen == {name for name, weight in zip("ab", weights, strict=True) if weight}
    assert await router.stats(RDS) == before


async def test_a_router_of_an_older_chart_gets_weights_with_its_routes(rig: Rig) -> None:
    spec = await split(rig, 100, 0)
    await rig.start(spec)
    router = await rig.router(layer=False)
    before = await router.stats(RDS)
    assert before
    rig.set(weighing(spec, 0, 100))
    assert (await rig.programmed(KEY)).acknowledged
    assert {(await rig.ask()).headers["x-inflight-variant"] for _ in range(20)} == {"b"}
    assert await router.stats(RDS) != before


async def test_an_operator_of_an_older_chart_makes_a_router_wait_a_little(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router that starts while an upgrade, or a rollback, has got half way."""
    monkeypatch.setattr("inflight_operator.xds.ads.taken_by", lambda _metadata: False)
    receive = Session.receive

    def knows_no_layer(self: Session, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        if request.type_url != RUNTIME:
            receive(self, request)

    monkeypatch.setattr(Session, "receive", knows_no_layer)
    spec = await split(rig, 0, 100)
    await rig.start(spec)
    router = await rig.router(ready=False)
    await router.until_ready(20)
    assert {(await rig.ask()).headers["x-inflight-variant"] for _ in range(20)} == {"b"}


async def test_the_next_operator_changes_routes_and_weights_at_once(rig: Rig) -> None:
    """The router has weights that are no longer those of its routes' first day; nobody sees those again."""
    spec = await split(rig, 0, 100)
    await rig.start(spec)
    await rig.router()
    rig.set(weighing(spec, 100, 0))
    assert (await rig.programmed(KEY)).acknowledged
    async with rig.traffic() as seen:
        for turn in range(5):  # other routes each time, and an operator that knows nothing of the last ones
            await rig.stop_operator()
            await rig.start(replace(weighing(spec, 100, 0), rules=(Rule(spec.backends[0].name, f"x-{turn}"),)))
            await rig.until(lambda: rig.plane.programmed(KEY).acknowledged)
    assert set(seen) == {"200 a"}
