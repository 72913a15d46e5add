"""Weights go to routers beside the routes, and belong to one version of them."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest
from envoy.config.route.v3 import route_pb2
from envoy.service.runtime.v3 import rtds_pb2
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from inflight_operator.xds import weights
from inflight_operator.xds.build import MAIN, TRIAL
from inflight_operator.xds.lastgood import Good
from inflight_operator.xds.model import Programmed, RouteSpec
from inflight_operator.xds.wire import ENDPOINTS, ROUTES, RUNTIME
from model_router import ModelRouter
from route_specs import backend, route_spec
from xds_talk import Talk

KEY, HOST = ("demo", "digits"), "demo/digits"
STABLE, CANDIDATE = backend(), backend("candidate", revision="bbbb2222")
NEXT = backend("candidate", revision="cccc3333")


def split(first: int, second: int, candidate: object = CANDIDATE) -> RouteSpec:
    return route_spec(STABLE, candidate, weights=(first, second))  # type: ignore[arg-type]


def in_force(router: ModelRouter) -> list[int]:
    return list(router.weights(HOST).values())


def steps(router: ModelRouter) -> list[tuple[str, tuple[str, ...]]]:
    return [(url, names) for url, names, _ in router.received]


def slowly(talk: Talk, router: ModelRouter) -> list[list[int]]:
    """Every split that was in force, one message at a time."""
    seen = [in_force(router)]
    stream = talk.routers["first"][1]
    waiting: deque[bytes] = deque()
    for _ in range(100):
        while router.outbox:
            talk.plane.received(stream, router.outbox.popleft())
        waiting.extend(stream.session.responses())
        if not waiting:
            return seen
        router.receive(waiting.popleft())
        if in_force(router) != seen[-1]:
            seen.append(in_force(router))
    raise AssertionError("they talk for ever")


def shifted(router: ModelRouter | None = None) -> tuple[Talk, ModelRouter]:
    """A router whose routes came with 95/5, and that has 50/50 from the layer."""
    talk = Talk(split(95, 5))
    router = talk.connect("first", router)
    talk.talk()
    talk.plane.set(KEY, split(50, 50))
    talk.talk()
    return talk, router


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param((95, 5), (50, 50), id="a-step"),
        pytest.param((100, 0), (90, 10), id="the-first-weight-of-a-canary"),
        pytest.param((50, 50), (0, 100), id="the-last"),
    ],
)
def test_weights_are_one_small_message(before: tuple[int, int], after: tuple[int, int]) -> None:
    talk = Talk(split(*before), route_spec(name="other"))
    router = talk.connect("first")
    talk.talk()
    assert in_force(router) == list(before)
    router.received.clear()
    talk.plane.set(KEY, split(*after))
    assert not talk.plane.programmed(KEY).acknowledged
    talk.talk()
    assert steps(router) == [(RUNTIME, (weights.LAYER,))]
    assert in_force(router) == list(after)
    assert talk.plane.programmed(KEY) == Programmed(acknowledged=True)


def test_a_router_without_the_layer_gets_them_with_its_routes() -> None:
    """Those of an older chart, while an upgrade replaces them."""
    talk = Talk(split(95, 5))
    old, new = talk.connect("first", ModelRouter(weighs=False)), talk.connect("second")
    talk.talk()
    for router in (old, new):
        router.received.clear()
    talk.plane.set(KEY, split(50, 50))
    talk.talk()
    assert in_force(old) == in_force(new) == [50, 50]
    assert steps(old) == [(ROUTES, (TRIAL,)), (ROUTES, (MAIN,))]
    assert steps(new) == [(RUNTIME, (weights.LAYER,))]
    assert talk.plane.programmed(KEY) == Programmed(acknowledged=True)


def test_routes_keep_their_weights_until_the_next_ones_are_there() -> None:
    talk, router = shifted()
    talk.plane.set(KEY, split(90, 10, NEXT))  # another revision, and other weights for it
    assert slowly(talk, router) == [[50, 50], [90, 10]], "never the 95/5 that the old routes came with"


def test_what_a_router_has_already_is_acknowledged_without_a_word() -> None:
    """Here and back again before the router has said anything: its routes and their weights never went away."""
    talk = Talk(split(95, 5))
    talk.connect("first")
    talk.talk()
    talk.plane.set(KEY, split(90, 10, NEXT))
    _, stream = talk.routers["first"]
    for response in list(stream.session.responses()):
        talk.hear("first", response)
    talk.plane.set(KEY, split(95, 5))
    talk.talk()
    assert talk.plane.programmed(KEY) == Programmed(acknowledged=True)
    talk.plane.set(KEY, replace(split(95, 5), split=()))
    talk.talk()
    assert talk.plane.programmed(KEY) == Programmed(acknowledged=True)


def refuses_nine_seconds(message: Message) -> str | None:
    hosts = message.virtual_hosts if isinstance(message, route_pb2.RouteConfiguration) else []
    return "no" if any(r.route.timeout.seconds == 9 for host in hosts for r in host.routes) else None


def nine_seconds(spec: RouteSpec) -> RouteSpec:
    return replace(spec, backends=tuple(replace(b, timeout_milliseconds=9000) for b in spec.backends))


def weights_of(good: Good | None) -> list[list[int]]:
    """Of the last known good routes, by protocol."""
    assert good is not None
    (host,) = route_pb2.RouteConfiguration.FromString(good.routes[KEY].host).virtual_hosts
    return [[c.weight.value for c in route.route.weighted_clusters.clusters] for route in host.routes]


def test_refused_routes_bring_no_weights() -> None:
    talk, router = shifted(ModelRouter(refuses_nine_seconds))
    talk.plane.set(KEY, nine_seconds(split(10, 90)))
    assert slowly(talk, router) == [[50, 50]]
    assert talk.plane.programmed(KEY).rejected == "the router refuses its routes: no"
    assert weights_of(talk.plane.good()) == [[50, 50]] * 2, "nor would a router have any that starts without us"


def test_weights_wait_for_the_endpoints_that_they_are_for() -> None:
    """The candidate's first pod is ready while endpoints of somebody else are on their way."""
    bare = replace(split(100, 0), backends=(STABLE, replace(CANDIDATE, endpoints=frozenset())))
    talk = Talk(bare, route_spec(backend(model="other"), name="other"))
    router = talk.connect("first")
    talk.talk()
    router.received.clear()
    talk.plane.set(("demo", "other"), route_spec(backend(model="other", ports=[1]), name="other"))
    (under_way,) = talk.responses("first")
    talk.plane.set(KEY, split(95, 5))
    assert talk.responses("first") == []
    talk.hear("first", under_way)
    talk.talk()
    candidate = ("demo/digits-candidate-bbbb2222", "demo/digits-candidate-bbbb2222/grpc")
    assert steps(router)[1:] == [(ENDPOINTS, candidate), (RUNTIME, (weights.LAYER,))]


def test_what_is_taken_back_is_in_force_only_once_the_router_has_that() -> None:
    talk = Talk(split(95, 5))
    router = talk.connect("first")
    talk.talk()
    talk.plane.set(KEY, split(50, 50))
    (under_way,) = talk.responses("first")
    talk.plane.set(KEY, split(95, 5))
    assert not talk.plane.programmed(KEY).acknowledged, "the router is about to take 50/50"
    talk.hear("first", under_way)
    talk.talk()
    assert in_force(router) == [95, 5]
    assert talk.plane.programmed(KEY) == Programmed(acknowledged=True)


def test_a_model_deployment_that_is_made_anew_has_its_weights_until_then() -> None:
    talk, router = shifted()
    talk.plane.remove(KEY)
    talk.plane.set(KEY, split(90, 10, NEXT))
    assert slowly(talk, router) == [[50, 50], [90, 10]]
    assert len(router.runtime) == 4, "two variants, two protocols"


def test_the_next_operator_leaves_weights_alone_while_it_does_not_know_what_is_served() -> None:
    _, router = shifted()
    again = Talk(split(90, 10, NEXT))  # changed while nobody led
    again.connect("first", router)
    assert slowly(again, router) == [[50, 50], [90, 10]]


def test_an_operator_that_comes_back_to_the_same_world_sends_no_weights() -> None:
    talk = Talk(split(95, 5), route_spec(backend(model="other"), name="other"))
    router = talk.connect("first")
    talk.talk()
    again = Talk(route_spec(backend(model="other"), name="other"), split(95, 5))
    router.received.clear()
    again.connect("first", router)
    again.talk()
    assert [names for _, names in steps(router) if names] == []
    assert again.plane.programmed(KEY) == Programmed(acknowledged=True)


def test_weights_that_are_refused_are_told() -> None:
    def refuses(message: Message) -> str | None:
        layer = message.layer.fields.values() if isinstance(message, rtds_pb2.Runtime) else ()
        return "not these" if any(value.number_value == 13 for value in layer) else None

    talk = Talk(split(95, 5), route_spec(backend(model="other"), name="other"))
    router = talk.connect("first", ModelRouter(refuses))
    talk.talk()
    talk.plane.set(KEY, split(87, 13))
    talk.talk()
    assert in_force(router) == [95, 5]
    assert talk.plane.programmed(KEY).rejected == "the router refuses the weights: not these"
    assert talk.plane.programmed(("demo", "other")) == Programmed(acknowledged=True)
    talk.plane.set(KEY, split(86, 14))
    talk.talk()
    assert in_force(router) == [86, 14]
    assert talk.plane.programmed(KEY) == Programmed(acknowledged=True)


def test_weights_of_routes_that_are_gone_are_gone() -> None:
    talk = Talk(split(95, 5))
    router = talk.connect("first")
    talk.talk()
    talk.plane.set(KEY, split(95, 5, NEXT))
    talk.talk()
    talk.plane.set(KEY, split(94, 6, NEXT))
    talk.talk()
    assert len(router.runtime) == 4  # two variants, two protocols
    talk.plane.remove(KEY)
    talk.talk()
    assert router.runtime == {}


def test_the_last_known_good_routes_have_the_weights_of_now() -> None:
    talk = Talk(split(95, 5))
    talk.connect("first")
    talk.talk()
    before = talk.plane.good()
    talk.plane.set(KEY, split(50, 50))
    talk.talk()
    good = talk.plane.good()
    assert weights_of(good) == [[50, 50]] * 2
    assert before
    assert good
    assert before.version({}) != good.version({})


@pytest.mark.parametrize(
    ("metadata", "taken"),
    [({}, False), ({"weights": weights.LAYER}, True), ({"weights": "other"}, False), ({"weights": {"a": 1}}, False)],
)
def test_a_router_says_that_it_has_the_layer(metadata: dict[str, object], taken: bool) -> None:
    assert weights.taken_by(ParseDict(metadata, Struct())) is taken
