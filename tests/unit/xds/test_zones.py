"""Which zones routers are told of."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given

from inflight_operator.observe.routers import ready
from inflight_operator.xds import clusters, wire
from inflight_operator.xds.model import Endpoint
from inflight_operator.xds.zones import LEAST, told


def pods(**zones: int) -> frozenset[Endpoint]:
    """So many in each zone; `nowhere` is no zone."""
    each = [zone.removeprefix("nowhere") for zone, count in zones.items() for _ in range(count)]
    return frozenset(Endpoint(f"10.0.0.{number}", 8080, zone) for number, zone in enumerate(each, 1))


@pytest.mark.parametrize(
    ("ready", "sizes"),
    [
        pytest.param(pods(), {}, id="none"),
        pytest.param(pods(a=LEAST), {"": LEAST}, id="one zone: not told, nothing changes"),
        pytest.param(pods(nowhere=2 * LEAST), {"": 2 * LEAST}, id="no zones"),
        pytest.param(pods(a=LEAST, b=LEAST), {"a": LEAST, "b": LEAST}, id="enough in each"),
        pytest.param(pods(a=3 * LEAST, b=LEAST - 1), {"": 4 * LEAST - 1}, id="too few in one"),
        pytest.param(pods(a=LEAST, b=LEAST, nowhere=LEAST), {"": 3 * LEAST}, id="some nowhere"),
    ],
)
def test_zones_are_told_where_each_has_enough_pods(ready: frozenset[Endpoint], sizes: dict[str, int]) -> None:
    assert {zone: len(there) for zone, there in told(ready).items()} == sizes


@given(st.frozensets(st.builds(Endpoint, st.sampled_from("12345678"), st.just(80), st.sampled_from(["", "a", "b"]))))
def test_no_endpoint_is_lost_or_told_twice(endpoints: frozenset[Endpoint]) -> None:
    assert sorted(e for there in told(endpoints, least=2).values() for e in there) == sorted(endpoints)


def assignment(endpoints: frozenset[Endpoint]) -> endpoint_pb2.ClusterLoadAssignment:
    made: wire.Resource = clusters.endpoints("demo/a", told(endpoints))
    (found,) = discovery_pb2.DeltaDiscoveryResponse.FromString(made.wire).resources
    return endpoint_pb2.ClusterLoadAssignment.FromString(found.resource.value)


def test_in_one_zone_the_router_is_told_the_same_as_without_zones() -> None:
    assert assignment(pods(a=20)) == assignment(pods(nowhere=20))


def test_a_zone_is_a_locality() -> None:
    localities = assignment(pods(a=LEAST, b=LEAST)).endpoints
    assert [(each.locality.zone, len(each.lb_endpoints)) for each in localities] == [("a", LEAST), ("b", LEAST)]


def test_the_routers_that_serve_are_the_ready_ones_with_their_zones() -> None:
    piece = {
        "ports": [{"name": "http", "port": 8080}, {"name": "https", "port": 8443}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "zone": "a", "conditions": {"ready": True}, "targetRef": {"name": "r-1"}},
            {"addresses": ["10.0.0.2", "10.0.9.2"], "conditions": {"ready": True}, "targetRef": {"name": "r-2"}},
            {"addresses": ["10.0.0.3"], "zone": "b", "conditions": {"ready": False}, "targetRef": {"name": "r-3"}},
        ],
    }
    assert ready(piece) == {"r-1": Endpoint("10.0.0.1", 8080, "a"), "r-2": Endpoint("10.0.9.2", 8080)}
    assert ready({"endpoints": None}) == {}
