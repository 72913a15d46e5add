"""Revisions, endpoints and operators come and go: no request notices."""

from __future__ import annotations

import asyncio

from inflight_operator.xds.model import RouteSpec
from route_specs import backend, route_spec
from router_rig import Rig

KEY = ("demo", "digits")


async def test_a_revision_is_replaced_in_one_change_under_traffic(rig: Rig) -> None:
    old, new = await rig.pod("old"), await rig.pod("new")
    await rig.start(route_spec(backend(ports=[old.port])))
    router = await rig.router()
    async with rig.traffic() as seen:
        for turn in range(20):
            port, revision = ((new.port, "new"), (old.port, "old"))[turn % 2]
            rig.set(route_spec(backend(ports=[port], revision=revision)))
            assert (await rig.programmed(KEY)).acknowledged
            await asyncio.sleep(0.02)
    assert set(seen) == {"200 old", "200 new"}
    await rig.until(lambda: True)
    stats = await router.stats(r"^cluster_manager\.(active_clusters|warming_clusters)$")
    assert stats == {"cluster_manager.active_clusters": 5, "cluster_manager.warming_clusters": 0}


async def test_weights_go_back_and_forth_under_traffic(rig: Rig) -> None:
    pods = [await rig.pod("a"), await rig.pod("b")]
    backends = [backend(pod.name, [pod.port]) for pod in pods]
    await rig.start(route_spec(*backends, weights=(95, 5)))
    await rig.router()
    async with rig.traffic() as seen:
        for weights in [(5, 95), (95, 5), (100, 0), (0, 100)] * 5:
            rig.set(route_spec(*backends, weights=weights))
            assert (await rig.programmed(KEY)).acknowledged
    assert set(seen) == {"200 a", "200 b"}
    before = pods[0].requests
    for _ in range(20):
        await rig.ask()
    assert pods[0].requests == before  # weight 0 gets none


async def test_endpoints_come_and_go_under_traffic(rig: Rig) -> None:
    first, second = await rig.pod("first"), await rig.pod("second")
    await rig.start(route_spec(backend(ports=[first.port])))
    await rig.router()
    async with rig.traffic() as seen:
        for ports in [[first.port, second.port], [second.port], [first.port]] * 7:
            rig.set(route_spec(backend(ports=ports)))
            assert (await rig.programmed(KEY)).acknowledged
            await asyncio.sleep(0.01)
    assert set(seen) == {"200 first", "200 second"}


async def test_a_cluster_that_changes_is_warm_again_at_once(rig: Rig) -> None:
    """More room in the circuit breaker makes a new cluster in Envoy, which waits for endpoints it doesn't ask for."""
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    router = await rig.router()
    async with rig.traffic() as seen:
        rig.set(route_spec(backend(ports=[pod.port], max_in_flight=5000)))
        assert (await rig.programmed(KEY)).acknowledged
        stats = await router.stats(r"^cluster_manager\.(cluster_modified|warming_clusters)$")
        assert stats == {"cluster_manager.cluster_modified": 2, "cluster_manager.warming_clusters": 0}
    assert set(seen) == {"200 pod"}


async def test_a_request_outlives_its_endpoint_its_route_and_its_cluster(rig: Rig) -> None:
    pod = await rig.pod(delay=0.6)
    await rig.start(route_spec(backend(ports=[pod.port])), route_spec(name="other"))
    router = await rig.router()
    long = asyncio.create_task(rig.ask())
    await pod.arrived.wait()
    rig.set(route_spec(backend(ports=[])))
    assert (await rig.programmed(KEY)).acknowledged
    rig.plane.remove(KEY)
    assert (await rig.programmed(KEY)).acknowledged
    assert (await rig.ask()).status == 404

    async def clusters() -> float:
        return (await router.stats(r"^cluster_manager\.active_clusters$"))["cluster_manager.active_clusters"]

    while await clusters() != 3:  # noqa: ASYNC110 - those of the operator, the routers and the administration
        await asyncio.sleep(0.01)
    assert not long.done()
    assert (await long).status == 200


async def test_a_new_operator_with_the_same_world_changes_nothing(rig: Rig) -> None:
    pod = await rig.pod()
    specs: list[RouteSpec] = [
        route_spec(backend(ports=[pod.port], model=name), name=name) for name in ("digits", "a", "b")
    ]
    await rig.start(*specs)
    router = await rig.router()
    counters = r"(cluster_(added|modified|removed)|config_reload|listener_modified|update_rejected)$"
    async with rig.traffic() as seen:
        await rig.stop_operator()
        before = await router.stats(counters)
        rig.make_plane()
        await rig.listen()
        await asyncio.sleep(0.5)  # connected, but the new operator has not read its first full list
        assert rig.plane.routers == frozenset()
        for spec in reversed(specs):
            rig.set(spec)
        rig.plane.open()
        assert (await rig.programmed(KEY)).acknowledged
        await asyncio.sleep(0.2)
        assert await router.stats(counters) == before
    assert set(seen) == {"200 pod"}


async def test_a_new_operator_takes_away_what_is_gone_and_brings_what_is_new(rig: Rig) -> None:
    pod = await rig.pod()
    digits = route_spec(backend(ports=[pod.port]))
    await rig.start(digits, route_spec(backend(model="gone"), name="gone"))
    router = await rig.router()
    async with rig.traffic() as seen:
        await rig.stop_operator()
        await rig.start(digits, route_spec(backend(ports=[pod.port], model="new"), name="new"))
        assert (await rig.programmed(("demo", "new"))).acknowledged
        assert (await rig.ask(host="new.demo")).status == 200
        assert (await rig.ask(host="gone.demo")).status == 404
        await asyncio.sleep(0.1)
        assert (await router.stats(r"cluster_manager\.cluster_removed$")) == {"cluster_manager.cluster_removed": 2}
    assert set(seen) == {"200 pod"}


async def test_a_new_operator_changes_a_cluster_that_its_router_has(rig: Rig) -> None:
    """On the new stream the router says that it has the endpoints, and waits for them all the same."""
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    router = await rig.router()
    async with rig.traffic() as seen:
        await rig.stop_operator()
        await rig.start(route_spec(backend(ports=[pod.port], max_in_flight=5000)))
        assert (await rig.programmed(KEY)).acknowledged
        stats = await router.stats(r"^cluster_manager\.(cluster_modified|warming_clusters)$")
        assert stats == {"cluster_manager.cluster_modified": 2, "cluster_manager.warming_clusters": 0}
    assert set(seen) == {"200 pod"}


async def test_without_an_operator_a_router_serves_and_a_new_one_is_not_ready(rig: Rig) -> None:
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    old = await rig.router("old")
    await rig.stop_operator()
    new = await rig.router("new", ready=False)
    async with rig.traffic() as seen:
        await asyncio.sleep(1.5)
        assert await old.ready()
        assert not await new.ready()
    assert set(seen) == {"200 pod"}


async def test_all_connected_routers_must_have_acknowledged(rig: Rig) -> None:
    await rig.start(route_spec(backend()))
    assert not rig.plane.programmed(KEY).acknowledged  # no router is no acknowledgement
    await rig.router("first")
    await rig.until(lambda: rig.plane.programmed(KEY).acknowledged)
    second = await rig.router("second")
    await rig.until(lambda: rig.plane.programmed(KEY).acknowledged)
    assert rig.plane.routers == {"first", "second"}
    rig.announced.clear()
    second.process.send_signal(19)  # SIGSTOP: it is there, and says nothing
    try:
        rig.set(route_spec(backend(ports=[10])))
        await asyncio.sleep(0.2)
        assert not rig.plane.programmed(KEY).acknowledged
        assert rig.announced == []
    finally:
        second.process.kill()
    await rig.until(lambda: rig.announced == [KEY])  # whoever is left has acknowledged
    assert rig.plane.programmed(KEY).acknowledged
    assert rig.plane.routers == {"first"}


async def test_nothing_is_sent_for_what_has_not_changed(rig: Rig) -> None:
    spec = route_spec(backend())
    await rig.start(spec)
    router = await rig.router()
    await rig.until(lambda: rig.plane.programmed(KEY).acknowledged)
    before = await router.stats(r"update_attempt$")
    for _ in range(10):
        rig.set(route_spec(backend()))
        await asyncio.sleep(0.01)
    assert await router.stats(r"update_attempt$") == before
