"""A ModelDeployment that the router refuses costs the others nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from google.protobuf.duration_pb2 import Duration
from xds.type.matcher.v3 import matcher_pb2

from inflight_operator.xds import build, clusters, wire
from inflight_operator.xds.build import Pieces
from inflight_operator.xds.model import Endpoint, RouteSpec
from route_specs import backend, route_spec
from router_rig import Rig

KEY, BAD = ("demo", "digits"), ("demo", "bad")


def broken(spec: RouteSpec, spoil: Callable[[Pieces], Pieces]) -> Pieces:
    """What `build` would make if it had a bug with revisions called broken."""
    pieces = build.pieces(spec)
    return spoil(pieces) if any(b.revision == "broken" for b in spec.backends) else pieces


def with_bad_route(pieces: Pieces) -> Pieces:
    """A regular expression that doesn't compile: Envoy's protobuf constraints don't see it."""
    configuration = route_pb2.RouteConfiguration.FromString(pieces.routes.host)
    match = configuration.virtual_hosts[0].routes[0].match
    match.safe_regex.regex = "("
    return with_host(pieces, configuration)


def with_bad_constraint(pieces: Pieces) -> Pieces:
    configuration = route_pb2.RouteConfiguration.FromString(pieces.routes.host)
    configuration.virtual_hosts[0].name = ""
    return with_host(pieces, configuration)


def with_everyones_domain(pieces: Pieces) -> Pieces:
    """Fine alone; refused next to the others."""
    configuration = route_pb2.RouteConfiguration.FromString(pieces.routes.host)
    configuration.virtual_hosts[0].domains.append("digits.demo")
    return with_host(pieces, configuration)


def with_host(pieces: Pieces, configuration: route_pb2.RouteConfiguration) -> Pieces:
    host = wire.serialise(configuration)
    return replace(pieces, routes=replace(pieces.routes, host=host, version=wire.digest(host)))


def with_bad_path(pieces: Pieces) -> Pieces:
    paths = matcher_pb2.Matcher.MatcherTree.MatchMap.FromString(pieces.routes.paths)
    for match in paths.map.values():
        route = route_components_pb2.Route.FromString(match.action.typed_config.value)
        route.match.safe_regex.regex = "["
        match.action.typed_config.value = wire.serialise(route)
    body = wire.serialise(paths)
    return replace(pieces, routes=replace(pieces.routes, paths=body, version=wire.digest(body)))


def with_bad_cluster(pieces: Pieces) -> Pieces:
    cluster = cluster_pb2.Cluster(name=next(iter(pieces.clusters)), connect_timeout=Duration(seconds=-1))
    return replace(pieces, clusters={cluster.name: wire.resource(wire.CLUSTER, cluster.name, cluster)})


def with_bad_endpoints(pieces: Pieces) -> Pieces:
    name = next(iter(pieces.endpoints))
    bad = clusters.endpoints(name, {"": [Endpoint("not-an-address", 1)]})
    return replace(pieces, endpoints={name: bad})


def with_some_bad_endpoints(pieces: Pieces) -> Pieces:
    """Those of the ModelDeployment called bad."""
    return with_bad_endpoints(pieces) if "demo/bad" in next(iter(pieces.endpoints)) else pieces


SPOILS = [
    with_bad_route,
    with_bad_constraint,
    with_bad_path,
    with_bad_cluster,
    with_bad_endpoints,
    with_everyones_domain,
]


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda f: f.__name__)
async def test_the_others_serve_and_change_while_one_is_refused(rig: Rig, spoil: Callable[[Pieces], Pieces]) -> None:
    pod, other = await rig.pod(), await rig.pod("other")
    good = route_spec(backend(ports=[pod.port]))
    bad = route_spec(backend(ports=[pod.port], model="bad"), name="bad")
    await rig.start(good, bad, pieces=lambda spec: broken(spec, spoil))
    await rig.router()
    async with rig.traffic() as seen, rig.traffic("bad.demo", clients=2) as seen_bad:
        await rig.until(lambda: seen and seen_bad)
        rig.set(route_spec(backend(ports=[pod.port], model="bad", revision="broken"), name="bad"))
        refused = await rig.programmed(BAD)
        assert not refused.acknowledged
        assert refused.rejected

        rig.set(route_spec(backend(ports=[other.port], revision="bbbb2222")))  # another changes
        assert (await rig.programmed(KEY)).acknowledged
        await rig.until(lambda: seen["200 other"])
        assert rig.plane.programmed(BAD).rejected == refused.rejected

        rig.set(route_spec(backend(ports=[other.port], model="bad", revision="mended"), name="bad"))
        assert (await rig.programmed(BAD)).acknowledged
        await rig.until(lambda: seen_bad["200 other"])
    assert set(seen) == {"200 pod", "200 other"}
    assert set(seen_bad) == {"200 pod", "200 other"}  # its last accepted routes stayed in force


async def test_a_changed_cluster_keeps_its_endpoints_when_its_new_ones_are_refused(rig: Rig) -> None:
    """Envoy holds back its acknowledgement of clusters until the changed one has endpoints."""

    def pieces(spec: RouteSpec) -> Pieces:
        made = build.pieces(spec)
        return with_bad_endpoints(made) if spec.backends[0].max_in_flight > 9 else made

    pod = await rig.pod()
    other = route_spec(backend(ports=[pod.port], model="bad"), name="bad")
    await rig.start(route_spec(backend(ports=[pod.port])), other, pieces=pieces)
    router = await rig.router()
    await rig.until(lambda: rig.plane.programmed(BAD).acknowledged)
    rig.set(route_spec(backend(ports=[pod.port], max_in_flight=5000)))
    assert "endpoints" in ((await rig.programmed(KEY)).rejected or "")
    rig.set(route_spec(backend(ports=[pod.port], model="bad", revision="new"), name="bad"))
    assert (await rig.programmed(BAD)).acknowledged
    stats = await router.stats(r"^cluster_manager\.(cluster_modified|warming_clusters)$")
    assert stats == {"cluster_manager.cluster_modified": 2, "cluster_manager.warming_clusters": 0}
    assert (await rig.ask()).status == 200


async def test_a_changed_cluster_whose_endpoints_were_never_accepted_holds_up_nobody(rig: Rig) -> None:
    await rig.start(
        route_spec(backend(model="bad"), name="bad"), pieces=lambda spec: with_some_bad_endpoints(build.pieces(spec))
    )
    await rig.router()
    assert (await rig.programmed(BAD)).rejected
    rig.set(route_spec(backend(model="bad", max_in_flight=5000), name="bad"))
    pod = await rig.pod()
    rig.set(route_spec(backend(ports=[pod.port])))
    assert (await rig.programmed(KEY)).acknowledged
    assert (await rig.programmed(BAD)).rejected
    assert (await rig.ask()).status == 200


async def test_a_new_operator_that_changes_a_cluster_and_spoils_its_endpoints_holds_up_nobody(rig: Rig) -> None:
    """It can't give the router what it last accepted: it doesn't know it."""
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port], model="bad"), name="bad"))
    await rig.router()
    assert (await rig.programmed(BAD)).acknowledged
    await rig.stop_operator()
    await rig.start(
        route_spec(backend(ports=[pod.port], model="bad", max_in_flight=5000), name="bad"),
        route_spec(backend(ports=[pod.port])),
        pieces=lambda spec: with_some_bad_endpoints(build.pieces(spec)),
    )
    assert (await rig.programmed(KEY)).acknowledged
    assert (await rig.programmed(BAD)).rejected
    assert (await rig.ask()).status == 200


async def test_a_new_operator_that_spoils_a_cluster_and_its_endpoints_takes_nothing_away(rig: Rig) -> None:
    """The router keeps both as they were; told that there are no endpoints, it keeps those as well."""

    def pieces(spec: RouteSpec) -> Pieces:
        return with_bad_endpoints(with_bad_cluster(build.pieces(spec)))

    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    await rig.router("old")
    assert (await rig.programmed(KEY)).acknowledged
    async with rig.traffic() as seen:
        await rig.stop_operator()
        await rig.start(route_spec(backend(ports=[pod.port])), pieces=pieces)
        assert (await rig.programmed(KEY)).rejected
        await asyncio.sleep(0.3)
    assert set(seen) == {"200 pod"}


@pytest.mark.parametrize("spoil", SPOILS[:-1], ids=lambda f: f.__name__)
async def test_a_router_that_starts_with_a_refused_one_serves_the_others(
    rig: Rig, spoil: Callable[[Pieces], Pieces]
) -> None:
    pod = await rig.pod()
    bad = route_spec(backend(ports=[pod.port], model="bad", revision="broken"), name="bad")
    await rig.start(bad, pieces=lambda spec: broken(spec, spoil))
    await rig.router("first")  # ready with the refused one alone
    assert (await rig.programmed(BAD)).rejected
    rig.set(route_spec(backend(ports=[pod.port])))
    assert (await rig.programmed(KEY)).acknowledged
    assert (await rig.ask()).status == 200
    await rig.router("second")  # ready with both
    await rig.until(lambda: rig.plane.routers == {"first", "second"})
    assert (await rig.programmed(KEY)).acknowledged


@pytest.mark.parametrize("count", [1, 3])
async def test_bad_ones_are_found_among_many_and_never_merged(rig: Rig, count: int) -> None:
    pod = await rig.pod()
    specs = [
        route_spec(
            backend(ports=[pod.port], model=f"m{i}", revision="broken" if i % 17 == 3 and i < 17 * count else "fine"),
            name=f"m{i}",
        )
        for i in range(60)
    ]
    await rig.start(*specs, pieces=lambda spec: broken(spec, with_bad_route))
    router = await rig.router()
    for i in range(60):
        state = await rig.programmed(("demo", f"m{i}"))
        is_bad = i % 17 == 3 and i < 17 * count
        assert (state.acknowledged, bool(state.rejected)) == (not is_bad, is_bad)
        assert (await rig.ask(host=f"m{i}.demo")).status == (404 if is_bad else 200)
    reloads = await router.stats(r"^http\.inflight\.rds\.inflight\.config_reload$")
    assert reloads == {"http.inflight.rds.inflight.config_reload": 1}  # merged once, when all was known


async def test_a_router_is_ready_only_with_its_routes(rig: Rig) -> None:
    """Envoy takes the refusal of a trial for the first answer about all routes, and would listen without them."""
    pod = await rig.pod()
    specs = [route_spec(backend(ports=[pod.port], model=f"m{i}"), name=f"m{i}") for i in range(120)]
    specs[7] = route_spec(backend(ports=[pod.port], model="m7", revision="broken"), name="m7")
    await rig.start(*specs, pieces=lambda spec: broken(spec, with_bad_route))
    await rig.router()
    assert [(await rig.ask(host=f"m{i}.demo")).status for i in (0, 8, 119)] == [200, 200, 200]
    assert (await rig.programmed(("demo", "m7"))).rejected


async def test_a_new_operator_finds_the_bad_one_again_without_harm(rig: Rig) -> None:
    """It doesn't know what its router serves; it must not take anyone's routes away while it looks."""
    pod = await rig.pod()
    specs = [route_spec(backend(ports=[pod.port], model=f"m{i}"), name=f"m{i}") for i in range(40)]
    specs[7] = route_spec(backend(ports=[pod.port], model="m7", revision="broken"), name="m7")
    options = {"pieces": lambda spec: broken(spec, with_bad_route)}
    await rig.start(*specs, **options)
    await rig.router()
    assert (await rig.programmed(("demo", "m7"))).rejected
    hosts = ["m0.demo", "m8.demo", "m39.demo"]
    async with rig.traffic(hosts[0], 3) as a, rig.traffic(hosts[1], 3) as b, rig.traffic(hosts[2], 3) as c:
        await rig.stop_operator()
        changed = route_spec(backend(ports=[pod.port], model="m0", timeout=1234), name="m0")
        await rig.start(changed, *specs[1:], **options)
        assert (await rig.programmed(("demo", "m0"))).acknowledged
        assert (await rig.programmed(("demo", "m7"))).rejected
        await asyncio.sleep(0.1)
    assert set(a) == set(b) == set(c) == {"200 pod"}


async def test_a_router_that_comes_later_gets_the_last_accepted_routes(rig: Rig) -> None:
    pod = await rig.pod()
    good = route_spec(backend(ports=[pod.port]))
    await rig.start(good, route_spec(name="other"), pieces=lambda spec: broken(spec, with_bad_route))
    first = await rig.router("first")
    await rig.until(lambda: rig.plane.programmed(KEY).acknowledged)
    bad_backend = replace(backend(ports=[pod.port]), revision="broken")
    rig.set(replace(good, backends=(bad_backend,)))
    assert (await rig.programmed(KEY)).rejected
    await rig.router("second")
    first.process.kill()
    await rig.until(lambda: rig.plane.routers == {"second"})
    assert (await rig.ask()).status == 200


async def test_what_can_not_be_programmed_is_not_even_tried(rig: Rig) -> None:
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    router = await rig.router()
    before = await router.stats("update_(success|rejected)$")
    rig.set(route_spec(backend(ports=[pod.port]), weights=(60,)))
    assert "sum to 100" in (rig.plane.programmed(KEY).rejected or "")
    assert (await rig.ask()).status == 200
    assert await router.stats("update_(success|rejected)$") == before
