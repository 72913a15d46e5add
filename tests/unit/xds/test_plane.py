"""What the operator's core hears about its wishes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import Message

from inflight_operator.xds.build import MAIN
from inflight_operator.xds.model import Endpoint, Programmed
from inflight_operator.xds.wire import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from model_router import ModelRouter
from route_specs import backend, route_spec
from xds_talk import Talk

KEY, OTHER = ("demo", "digits"), ("demo", "other")
SPEC = route_spec(backend())
BOTH = {"first": Endpoint("10.0.0.1", 8080), "second": Endpoint("10.0.0.2", 8080)}


def test_nobody_there_is_no_acknowledgement() -> None:
    rig = Talk(SPEC)
    assert rig.plane.programmed(KEY) == Programmed(acknowledged=False)
    rig.connect("first")
    rig.talk()
    assert rig.plane.programmed(KEY) == Programmed(acknowledged=True)
    assert rig.announced == [KEY]


def test_a_router_that_serves_and_is_not_connected_has_not_acknowledged() -> None:
    """It has what an earlier operator told it, as just after a change of leader."""
    rig = Talk(SPEC)
    rig.plane.serve_from(BOTH)
    rig.connect("first")
    rig.connect("third")  # which doesn't serve yet, or no longer
    rig.talk()
    assert not rig.plane.programmed(KEY).acknowledged
    rig.connect("second")
    rig.talk()
    assert rig.plane.programmed(KEY).acknowledged


def test_a_router_that_serves_no_longer_is_not_waited_for() -> None:
    rig = Talk(SPEC)
    rig.plane.serve_from(BOTH)
    rig.connect("first")
    rig.talk()
    assert rig.announced == []
    rig.plane.serve_from({"first": BOTH["first"]})
    assert rig.announced == [KEY]
    assert rig.plane.programmed(KEY).acknowledged


def test_a_router_that_loses_its_connection_goes_on_with_what_it_has_acknowledged() -> None:
    rig = Talk(SPEC)
    rig.plane.serve_from(BOTH)
    rig.connect("first")
    rig.connect("second")
    rig.talk()
    rig.plane.disconnected(rig.routers.pop("second")[1])
    assert rig.plane.programmed(KEY).acknowledged
    rig.plane.set(KEY, route_spec(backend(ports=[1])))
    rig.talk()
    assert not rig.plane.programmed(KEY).acknowledged, "it hasn't heard of that"


def test_nothing_is_remembered_of_routers_and_model_deployments_that_are_gone() -> None:
    rig = Talk(SPEC)
    for name in ("first", "second", "third"):
        rig.plane.serve_from({name: Endpoint("10.0.0.1", 8080)})
        rig.connect(name)
        rig.talk()
        assert rig.plane.programmed(KEY).acknowledged
        assert rig.plane._agreed == {KEY: {name}}
        rig.plane.disconnected(rig.routers.pop(name)[1])
    rig.connect("third")
    rig.plane.remove(KEY)
    rig.talk()
    assert rig.plane.programmed(KEY).acknowledged
    assert rig.plane._agreed == {}


def test_the_callback_comes_once_per_wish_and_for_whoever_asked_too_early() -> None:
    rig = Talk(SPEC, route_spec(name="other"))
    rig.connect("first")
    rig.talk()
    assert sorted(rig.announced) == [KEY, OTHER]
    rig.announced.clear()
    rig.connect("second")
    assert not rig.plane.programmed(KEY).acknowledged  # asked while the second is not there yet
    rig.talk()
    assert rig.announced == [KEY]


def refuses_long_timeouts(message: Message) -> str | None:
    if isinstance(message, route_pb2.RouteConfiguration):
        routes = [route for host in message.virtual_hosts for route in host.routes]
        return "too long" if any(route.route.timeout.ToMilliseconds() == 9999 for route in routes) else None
    return None


def test_a_router_listens_only_once_its_routes_are_decided() -> None:
    """The model asserts it: a refused trial would make a listener ready whose routes haven't come."""
    bad = route_spec(backend(model="bad", timeout=9999), name="bad")
    rig = Talk(SPEC, bad, route_spec(backend(model="other"), name="other"))
    router = rig.connect("first", ModelRouter(refuses_long_timeouts))
    rig.talk()
    steps = [(url, names) for url, names, _ in router.received if url in (LISTENER, ROUTES)]
    listened = steps.index((LISTENER, (MAIN,)))
    assert [url for url, _ in steps[:listened]] == [ROUTES] * listened  # the bad one has been found by now
    assert steps[listened + 1] == (ROUTES, (MAIN,))
    assert rig.plane.programmed(("demo", "bad")).rejected == "the router refuses its routes: too long"


def test_what_comes_between_the_listener_and_its_routes_is_tried_after_them() -> None:
    rig = Talk(SPEC)
    router = rig.connect("first", ModelRouter(refuses_long_timeouts))
    _, stream = rig.routers["first"]
    for _turn in range(20):
        if (LISTENER, (MAIN,)) in [step[:2] for step in router.received]:
            break
        while router.outbox:
            rig.plane.received(stream, router.outbox.popleft())
        for response in rig.responses("first"):
            router.receive(response)
    assert router.received[-1][:2] == (LISTENER, (MAIN,))
    rig.plane.set(("demo", "bad"), route_spec(backend(model="bad", timeout=9999), name="bad"))
    rig.talk()
    assert rig.plane.programmed(KEY) == Programmed(acknowledged=True)
    assert rig.plane.programmed(("demo", "bad")).rejected == "the router refuses its routes: too long"


def test_an_unchanged_wish_sends_nothing() -> None:
    rig = Talk(SPEC)
    rig.connect("first")
    rig.talk()
    rig.plane.set(KEY, route_spec(backend()))
    assert rig.talk() == 0


def test_a_change_of_endpoints_is_one_response() -> None:
    both = route_spec(backend(), backend("candidate"), weights=(95, 5))
    rig = Talk(both, route_spec(name="other"))
    router = rig.connect("first")
    rig.talk()
    router.received.clear()
    rig.plane.set(KEY, replace(both, backends=(backend(ports=[1]), both.backends[1])))
    rig.talk()
    assert [(url, names) for url, names, _ in router.received] == [(ENDPOINTS, ("demo/digits-stable-aaaa1111",))]


def test_a_new_revision_is_brought_before_its_routes_and_the_old_taken_after() -> None:
    rig = Talk(SPEC)
    router = rig.connect("first")
    rig.talk()
    router.received.clear()
    rig.plane.set(KEY, route_spec(backend(revision="bbbb2222")))
    rig.talk()
    new, old = "demo/digits-stable-bbbb2222", "demo/digits-stable-aaaa1111"
    assert [step for step in router.received if step[1] != ("inflight-trial",)] == [
        (CLUSTER, (new, f"{new}/grpc"), ()),
        (ENDPOINTS, (new, f"{new}/grpc"), ()),
        (ROUTES, (MAIN,), ()),
        (CLUSTER, (), (old, f"{old}/grpc")),
    ]


def test_changes_made_together_go_out_together() -> None:
    rig = Talk()
    router = rig.connect("first")
    rig.talk()
    router.received.clear()
    for i in range(20):
        rig.plane.set(("demo", f"m{i}"), route_spec(backend(model=f"m{i}"), name=f"m{i}"))
    rig.talk()
    steps = [(url, len(names)) for url, names, _ in router.received]
    assert steps[:2] == [(CLUSTER, 40), (ROUTES, 1)]
    assert len(steps) <= 6  # and endpoints, routes, and an empty trial afterwards


def test_a_router_that_comes_back_to_the_same_world_is_sent_nothing_new() -> None:
    specs = [route_spec(backend(model=f"m{i}"), name=f"m{i}") for i in range(5)]
    rig = Talk(*specs)
    router = rig.connect("first")
    rig.talk()
    again = Talk(*reversed(specs))  # a new operator
    again.connect("first", router)
    router.received.clear()
    again.talk()
    assert [step for step in router.received if step[1] or step[2]] == []
    assert all(again.plane.programmed(("demo", f"m{i}")).acknowledged for i in range(5))


def test_a_removed_one_is_acknowledged_when_no_router_has_it() -> None:
    rig = Talk(SPEC)
    router = rig.connect("first")
    rig.talk()
    rig.announced.clear()
    rig.plane.remove(KEY)
    assert not rig.plane.programmed(KEY).acknowledged
    rig.talk()
    assert rig.plane.programmed(KEY).acknowledged
    assert rig.announced == [KEY]
    assert router.main.keys() == {"*"}
    assert not router.versions[CLUSTER]


def test_an_invalid_wish_leaves_what_was_and_is_told() -> None:
    rig = Talk(SPEC)
    router = rig.connect("first")
    rig.talk()
    rig.plane.set(KEY, replace(SPEC, split=((SPEC.backends[0].name, 1),)))
    assert rig.talk() == 0
    state = rig.plane.programmed(KEY)
    assert not state.acknowledged
    assert "sum to 100" in (state.rejected or "")
    assert "demo/digits" in router.main
    rig.plane.set(KEY, SPEC)  # as it was: mended without a word to the router
    assert rig.plane.programmed(KEY) == Programmed(acknowledged=True)


def test_two_model_deployments_can_not_share_a_cluster() -> None:
    """a with the variant b-c and a-b with the variant c may come to the same name."""
    rig = Talk(SPEC)
    thief = route_spec(backend(), name="other")
    rig.plane.set(OTHER, thief)
    assert "belongs to the ModelDeployment demo/digits" in (rig.plane.programmed(OTHER).rejected or "")
    rig.plane.remove(KEY)
    rig.plane.set(OTHER, thief)
    assert rig.plane.programmed(OTHER).rejected is None


def test_a_spec_under_another_key_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="given as that of"):
        Talk().plane.set(OTHER, SPEC)


def test_a_router_that_connects_twice_is_one_router() -> None:
    rig = Talk(SPEC)
    router = rig.connect("first")
    rig.talk()
    _, stale = rig.routers["first"]
    rig.connect("first", router)
    assert stale.over
    rig.plane.disconnected(stale)  # the old stream ends late
    assert rig.plane.routers == {"first"}
    rig.talk()
    assert rig.plane.programmed(KEY).acknowledged


def test_an_answer_to_nothing_is_ignored() -> None:
    rig = Talk(SPEC)
    rig.connect("first")
    rig.talk()
    _, stream = rig.routers["first"]
    for nonce in ("999", "1"):
        stray = discovery_pb2.DeltaDiscoveryRequest(type_url=ENDPOINTS, response_nonce=nonce)
        stray.error_detail.message = "late"
        rig.plane.received(stream, stray)
    assert rig.talk() == 0
    assert rig.plane.programmed(KEY).acknowledged


def test_routes_that_passed_but_never_served_do_not_come_back_to_a_cluster_on_its_way_out() -> None:
    """One of their clusters was refused; now it is mended, the other is taken away, and what is wanted is refused."""

    def refuses(message: Message) -> str | None:
        if isinstance(message, cluster_pb2.Cluster):
            return "cluster" if message.circuit_breakers.thresholds[0].max_requests.value > 9000 else None
        hosts = message.virtual_hosts if isinstance(message, route_pb2.RouteConfiguration) else []
        return "routes" if any(r.route.timeout.seconds == 6 for host in hosts for r in host.routes) else None

    rig = Talk(route_spec(name="other"))
    router = rig.connect("first", ModelRouter(refuses))
    rig.talk()
    rig.plane.set(KEY, route_spec(backend(max_in_flight=3000), backend("candidate"), weights=(50, 50)))
    rig.talk()
    mended = route_spec(backend(timeout=6000))
    rig.plane.set(KEY, replace(mended, backends=(*mended.backends, backend("candidate"))))
    for response in rig.responses("first"):  # the cluster, and the routes' trial, which is refused
        rig.hear("first", response)
    (endpoints,) = rig.responses("first")
    rig.plane.set(KEY, mended)
    (removal,) = rig.responses("first")
    rig.hear("first", endpoints)
    for response in (removal, *rig.responses("first")):
        rig.hear("first", response)  # the model asserts that no route leads to nowhere
    rig.talk()
    assert "refuses its routes" in (rig.plane.programmed(KEY).rejected or "")
    assert router.main.keys() == {"*", "demo/other"}
