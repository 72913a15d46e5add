"""Any history of changes, refusals, restarts and delays keeps traffic whole and ends with what was wanted."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import Message
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inflight_operator.xds import build
from inflight_operator.xds.ads import Stream
from inflight_operator.xds.build import MAIN, Key
from inflight_operator.xds.model import Endpoint, RouteSpec
from inflight_operator.xds.plane import ControlPlane
from inflight_operator.xds.wire import Resource
from model_router import ModelRouter
from route_specs import backend, route_spec

BAD_TIMEOUT, BAD_PORT, BAD_BREAKER, BAD_IN_FLIGHT = 6666, 666, 16384, 3000


def refuses(message: Message) -> str | None:
    """A router that doesn't like some routes, some clusters and some endpoints."""
    if isinstance(message, cluster_pb2.Cluster):
        bad = message.circuit_breakers.thresholds[0].max_requests.value == BAD_BREAKER
        return "cluster refused" if bad else None
    if isinstance(message, endpoint_pb2.ClusterLoadAssignment):
        hosts = [host for locality in message.endpoints for host in locality.lb_endpoints]
        bad = any(host.endpoint.address.socket_address.port_value == BAD_PORT for host in hosts)
        return "endpoints refused" if bad else None
    if isinstance(message, route_pb2.RouteConfiguration):
        routes = [route for host in message.virtual_hosts for route in host.routes]
        bad = any(route.route.timeout.ToMilliseconds() == BAD_TIMEOUT for route in routes)
        return "routes refused" if bad else None
    return None


def endpoints(*ports: int) -> frozenset[Endpoint]:
    return frozenset(Endpoint("127.0.0.1", port) for port in ports)


EDITS: list[dict[str, Any]] = [
    {"endpoints": endpoints()},
    {"endpoints": endpoints(1)},
    {"endpoints": endpoints(2)},
    {"endpoints": endpoints(BAD_PORT)},
    {"max_in_flight": 9},
    {"max_in_flight": 2000},
    {"max_in_flight": BAD_IN_FLIGHT},
    {"max_in_flight": 2000, "endpoints": endpoints(BAD_PORT)},
    {"timeout_milliseconds": 1500},
    {"timeout_milliseconds": BAD_TIMEOUT},
]


@st.composite
def specs(draw: st.DrawFn) -> RouteSpec:
    """Few names and values, so that they meet again and again; one in four has something that is refused."""
    name = draw(st.sampled_from("abc"))
    backends = [
        backend(
            variant,
            draw(st.sampled_from([[1], [2], [1, 2], []])),
            model=name,
            revision=draw(st.sampled_from(["r1", "r1", "r2"])),
            timeout=draw(st.sampled_from([1000, 2000])),
            max_in_flight=draw(st.sampled_from([9, 2000])),
        )
        for variant in ["stable", "candidate"][: draw(st.sampled_from([0, 1, 2, 2]))]
    ]
    bad = draw(st.sampled_from([None] * 9 + ["routes", "cluster", "endpoints"])) if backends else None
    if bad == "routes":
        backends[0] = replace(backends[0], timeout_milliseconds=BAD_TIMEOUT)
    elif bad == "cluster":
        backends[0] = replace(backends[0], max_in_flight=BAD_IN_FLIGHT, endpoints=endpoints(1))
    elif bad == "endpoints":
        backends[0] = replace(backends[0], endpoints=endpoints(BAD_PORT))
    weights = draw(st.sampled_from([(60, 40), (100, 0), (1, 99)])) if len(backends) == 2 else (100,)
    return route_spec(*backends, name=name, weights=weights)


def is_bad(spec: RouteSpec) -> bool:
    pieces = build.pieces(spec)  # both protocols' clusters: pods that share an address are one of the second's
    made = [cluster_pb2.Cluster.FromString(body(resource)) for resource in pieces.clusters.values()]
    return (
        any(b.timeout_milliseconds == BAD_TIMEOUT for b in spec.backends)
        or any(refuses(cluster) for cluster in made)
        or any(endpoint.port == BAD_PORT for b in spec.backends for endpoint in b.endpoints)
    )


def body(resource: Resource) -> bytes:
    value: bytes = discovery_pb2.DeltaDiscoveryResponse.FromString(resource.wire).resources[0].resource.value
    return value


def host_of(spec: RouteSpec) -> route_components_pb2.VirtualHost:
    return route_pb2.RouteConfiguration.FromString(build.pieces(spec).routes.host).virtual_hosts[0]


def unweighed(host: route_components_pb2.VirtualHost) -> route_components_pb2.VirtualHost:
    """A router with the layer may have routes with other weights."""
    copy = route_components_pb2.VirtualHost.FromString(host.SerializeToString())
    for route in copy.routes:
        for cluster in route.route.weighted_clusters.clusters:
            cluster.ClearField("weight")
    return copy


def wished(spec: RouteSpec) -> dict[str, int]:
    """The weights by cluster; {} where there is one cluster or none."""
    given = dict(spec.split)
    named = {f"{spec.namespace}/{name}": given.get(name, 0) for _, name in spec.direct}
    return named if len(named) > 1 and given else {}


class Conversation(RuleBasedStateMachine):
    """One operator and two routers, each with its own delays in both directions; the second has no layer of weights."""

    @initialize()
    def begin(self) -> None:
        self.wanted: dict[Key, RouteSpec] = {}
        self.routers = {node: ModelRouter(refuses, weighs=node == "first") for node in ("first", "second")}
        self.wishes: dict[str, list[dict[str, int]]] = {"*": [{}]}
        self.seen: dict[tuple[str, str], int] = {}
        """By router and host: which of the wishes was in force last."""
        self.may_vanish: set[str] = set()
        self.start_operator()

    def start_operator(self) -> None:
        self.announced: list[Key] = []
        self.plane = ControlPlane(self.announced.append)
        self.plane.open()
        self.streams: dict[str, Stream] = {}
        self.inboxes: dict[str, deque[bytes]] = {}
        for key, spec in self.wanted.items():
            self.plane.set(key, spec)
        for node in self.routers:
            self.connect(node)

    def connect(self, node: str) -> None:
        self.routers[node].connect()
        weighs = self.routers[node].weighs
        self.streams[node] = self.plane.connected(node, "1.40.0", {MAIN}, weighs=weighs)
        self.inboxes[node] = deque()

    @rule(spec=specs())
    def set(self, spec: RouteSpec) -> None:
        self.change(spec)

    def change(self, spec: RouteSpec) -> None:
        key = (spec.namespace, spec.name)
        self.wanted[key] = spec
        if is_bad(spec):
            self.may_vanish.add("/".join(key))  # after a restart nobody knows what was accepted before
        self.wishes.setdefault("/".join(key), []).append(wished(spec))
        self.plane.set(key, spec)

    @precondition(lambda self: any(spec.backends for spec in self.wanted.values()))
    @rule(data=st.data(), edit=st.sampled_from(EDITS))
    def edit(self, data: st.DataObject, edit: dict[str, Any]) -> None:
        """One thing about one backend, as most changes are."""
        spec = data.draw(st.sampled_from([spec for spec in self.wanted.values() if spec.backends]))
        first, *rest = spec.backends
        self.change(replace(spec, backends=(replace(first, **edit), *rest)))

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.wanted)))
        del self.wanted[key]
        self.may_vanish.add("/".join(key))
        self.plane.remove(key)

    @rule(node=st.sampled_from(["first", "second"]), turns=st.integers(1, 25))
    def talk(self, node: str, turns: int) -> None:
        for _ in range(turns):
            self.deliver(node)

    def deliver(self, node: str) -> bool:
        """One message in each direction; whether there was one."""
        router, stream = self.routers[node], self.streams[node]
        moved = False
        if router.outbox:
            self.plane.received(stream, router.outbox.popleft())
            moved = True
        self.inboxes[node].extend(stream.session.responses())
        if self.inboxes[node]:
            before = set(router.main)
            router.receive(self.inboxes[node].popleft())
            lost = before - set(router.main) - self.may_vanish
            assert not lost, f"{lost} lost their routes"
            self.look_at_weights(node)
            moved = True
        return moved

    def look_at_weights(self, node: str) -> None:
        """They are those of a wish, and never of one before the last that was seen."""
        for host in self.routers[node].main:
            wishes, last = self.wishes[host], self.seen.get((node, host), 0)
            found = self.routers[node].weights(host)
            assert found in wishes[last:], f"{node}, {host}: {found} is none of {wishes[last:]}, of {wishes}"
            self.seen[node, host] = wishes.index(found, last)

    @rule(node=st.sampled_from(["first", "second"]))
    def reconnect(self, node: str) -> None:
        self.plane.disconnected(self.streams[node])
        self.connect(node)

    @rule(node=st.sampled_from(["first", "second"]))
    def replace_router(self, node: str) -> None:
        self.routers[node] = ModelRouter(refuses, weighs=node == "first")
        self.seen = {(router, host): n for (router, host), n in self.seen.items() if router != node}
        self.plane.disconnected(self.streams[node])
        self.connect(node)

    @rule()
    def replace_operator(self) -> None:
        self.start_operator()

    @rule()
    def settle(self) -> None:
        """When nothing happens any more, all have what was wanted, and it takes a bounded number of messages."""
        for _ in range(500):
            if not any([self.deliver(node) for node in self.routers]):
                break
        else:
            raise AssertionError("they talk for ever")
        for key, spec in self.wanted.items():
            state = self.plane.programmed(key)
            assert bool(state.rejected) == is_bad(spec), (key, state)
            assert state.acknowledged == (not is_bad(spec)), (key, state)
        good = {"/".join(key): spec for key, spec in self.wanted.items() if not is_bad(spec)}
        clusters = {n for spec in self.wanted.values() if not is_bad(spec) for n in build.pieces(spec).clusters}
        for router in self.routers.values():
            found = {name: unweighed(host) for name, host in router.main.items() if name in good}
            assert found == {name: unweighed(host_of(spec)) for name, spec in good.items()}
            assert {name: router.weights(name) for name in good} == {n: wished(spec) for n, spec in good.items()}
            assert router.main.keys() - {"*"} <= {"/".join(key) for key in self.wanted}
            assert clusters <= router.warm
            if not any(map(is_bad, self.wanted.values())):
                assert clusters == router.versions["type.googleapis.com/envoy.config.cluster.v3.Cluster"].keys()

    @invariant()
    def one_stream_per_router(self) -> None:
        if hasattr(self, "plane"):
            assert self.plane.routers <= {"first", "second"}

    def teardown(self) -> None:
        if hasattr(self, "plane"):
            self.settle()


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
