"""What Envoy is told about one ModelDeployment, and what it is never told."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from xds.type.matcher.v3 import matcher_pb2

from inflight_operator.xds import build, check, clusters, wire
from inflight_operator.xds.build import Pieces
from inflight_operator.xds.model import Endpoint, RouteSpec, Rule, Sticky
from route_specs import backend, route_spec

STABLE = backend(ports=[8080])
CANDIDATE = backend("candidate", [8081, 8080], revision="bbbb2222", timeout=7000)
SPEC = route_spec(STABLE, CANDIDATE, weights=(95, 5))


def only(resource: wire.Resource) -> discovery_pb2.Resource:
    """The resource of a piece of response."""
    (found,) = discovery_pb2.DeltaDiscoveryResponse.FromString(resource.wire).resources
    assert (found.name, found.version) == (resource.name, resource.version)
    return found


def configuration(*specs: RouteSpec) -> route_pb2.RouteConfiguration:
    routes = {(spec.namespace, spec.name): build.pieces(spec).routes for spec in specs}
    resource = only(build.route_configuration(build.MAIN, build.routes_version(routes), routes))
    return route_pb2.RouteConfiguration.FromString(resource.resource.value)


def test_a_split_is_weighted_clusters_with_the_longest_timeout_of_its_backends() -> None:
    hosts = {host.name: host for host in configuration(SPEC).virtual_hosts}
    grpc, route = hosts["demo/digits"].routes
    assert list(hosts["demo/digits"].domains) == ["digits.demo", "digits.demo.svc", "digits.demo.svc.cluster.local"]
    assert MessageToDict(route.route, preserving_proto_field_name=True) == {
        "weighted_clusters": {
            "clusters": [
                {"name": "demo/digits-stable-aaaa1111", "weight": 95},
                {"name": "demo/digits-candidate-bbbb2222", "weight": 5},
            ],
            "runtime_key_prefix": build.pieces(SPEC).routes.version,
        },
        "timeout": "7s",
        "idle_timeout": "30s",
    }
    assert grpc.match.HasField("grpc")
    assert [(c.name, c.weight.value) for c in grpc.route.weighted_clusters.clusters] == [
        ("demo/digits-stable-aaaa1111/grpc", 95),
        ("demo/digits-candidate-bbbb2222/grpc", 5),
    ]
    assert grpc.route.timeout == route.route.timeout


def test_paths_are_found_by_their_longest_prefix_and_stripped() -> None:
    (catch_all,) = [host for host in configuration(SPEC).virtual_hosts if host.name == "*"]
    tree = catch_all.matcher.matcher_tree
    found = {}
    for prefix, match in tree.prefix_match_map.map.items():
        route = route_components_pb2.Route.FromString(match.action.typed_config.value)
        assert route.match.prefix == prefix
        found[prefix] = (route.route.prefix_rewrite, [header.string_match.prefix for header in route.match.headers])
    assert found == {
        "/demo/digits/": ("/", ["/demo/digits/metrics", "/demo/digits/variants"]),
        "/demo/digits/variants/stable/": ("/", ["/demo/digits/variants/stable/metrics"]),
        "/demo/digits/variants/candidate/": ("/", ["/demo/digits/variants/candidate/metrics"]),
    }


def test_rules_come_before_the_split_by_host_and_by_path_and_for_grpc() -> None:
    rules = (Rule(CANDIDATE.name, "x-qa", "1"), Rule(STABLE.name, path="/v2/models/digits"))
    ruled = configuration(replace(SPEC, rules=rules))
    (host,) = [host for host in ruled.virtual_hosts if host.name == "demo/digits"]
    assert [(r.match.HasField("grpc"), r.match.prefix, r.route.cluster) for r in host.routes] == [
        (True, "/", "demo/digits-candidate-bbbb2222/grpc"),
        (True, "/v2/models/digits", "demo/digits-stable-aaaa1111/grpc"),
        (True, "/", ""),
        (False, "/", "demo/digits-candidate-bbbb2222"),
        (False, "/v2/models/digits", "demo/digits-stable-aaaa1111"),
        (False, "/", ""),
    ]
    (catch_all,) = [host for host in ruled.virtual_hosts if host.name == "*"]
    match = catch_all.matcher.matcher_tree.prefix_match_map.map["/demo/digits/"]
    found = route_components_pb2.RouteList.FromString(match.action.typed_config.value)
    assert [(r.match.prefix, r.route.prefix_rewrite) for r in found.routes] == [
        ("/demo/digits/", "/"),
        ("/demo/digits/v2/models/digits", "/v2/models/digits"),
        ("/demo/digits/", "/"),
    ]
    assert all(any(h.name == ":path" for h in r.match.headers) for r in found.routes), (
        "metrics are hidden from rules too"
    )


def test_nobody_to_route_to_is_a_configuration_too() -> None:
    (catch_all,) = configuration().virtual_hosts
    assert list(catch_all.domains) == ["*"]
    assert not catch_all.HasField("matcher")


def test_a_cluster_says_who_answers_and_reports_its_load() -> None:
    found = build.pieces(SPEC).clusters
    cluster = cluster_pb2.Cluster.FromString(only(found["demo/digits-stable-aaaa1111"]).resource.value)
    assert cluster.name == "demo/digits-stable-aaaa1111"
    labels = MessageToDict(cluster.metadata.filter_metadata["inflight"])
    assert labels == {"variant": "stable", "revision": "aaaa1111"}
    assert cluster.lrs_server.HasField("self")
    (policy,) = cluster.load_balancing_policy.policies
    assert policy.typed_extension_config.name == "envoy.load_balancing_policies.least_request"
    assert cluster.connect_timeout.ToMilliseconds() <= 1000


def test_a_backend_has_a_cluster_for_each_protocol_at_the_same_pods() -> None:
    stable, candidate = "demo/digits-stable-aaaa1111", "demo/digits-candidate-bbbb2222"
    found = build.pieces(SPEC).clusters
    assert set(found) == {stable, f"{stable}/grpc", candidate, f"{candidate}/grpc"}
    for name, resource in found.items():
        options = cluster_pb2.Cluster.FromString(only(resource).resource.value).typed_extension_protocol_options
        (packed,) = options.values()
        protocol = http_protocol_options_pb2.HttpProtocolOptions.FromString(packed.value).explicit_http_config
        assert protocol.HasField("http2_protocol_options") == name.endswith("/grpc")
    assert clusters.counted_as(f"{stable}/grpc") == clusters.counted_as(stable) == stable


def ports(resource: wire.Resource) -> list[int]:
    assignment = endpoint_pb2.ClusterLoadAssignment.FromString(only(resource).resource.value)
    return [e.endpoint.address.socket_address.port_value for e in assignment.endpoints[0].lb_endpoints]


def test_endpoints_are_in_order_and_their_absence_is_said() -> None:
    found = build.pieces(SPEC).endpoints
    assert ports(found["demo/digits-candidate-bbbb2222"]) == [8080, 8081]
    assert ports(found["demo/digits-candidate-bbbb2222/grpc"]) == [8081]  # of one address, as both are here
    empty = clusters.endpoints("demo/none", {})
    assert not endpoint_pb2.ClusterLoadAssignment.FromString(only(empty).resource.value).endpoints


def test_versions_follow_content_and_only_that() -> None:
    def versions(pieces: Pieces) -> dict[str, str]:
        return {
            "routes": pieces.routes.version,
            "whole": pieces.whole.version,
            "weights": wire.digest(pieces.weights),
            **{f"cluster {name}": r.version for name, r in pieces.clusters.items()},
            **{f"endpoints {name}": r.version for name, r in pieces.endpoints.items()},
        }

    def changed(spec: RouteSpec) -> set[str]:
        return {name for name, version in versions(build.pieces(spec)).items() if first[name] != version}

    first = versions(build.pieces(SPEC))
    assert changed(SPEC) == set()
    moved = replace(SPEC, backends=(replace(STABLE, endpoints=frozenset({Endpoint("127.0.0.1", 1)})), CANDIDATE))
    assert {name for name in changed(moved) if not name.endswith("/grpc")} == {"endpoints demo/digits-stable-aaaa1111"}
    heavier = replace(SPEC, split=((STABLE.name, 90), (CANDIDATE.name, 10)))
    assert changed(heavier) == {"whole", "weights"}
    assert changed(replace(SPEC, split=((CANDIDATE.name, 100),))) == {"whole", "weights"}, "nobody asks the other one"
    assert changed(replace(SPEC, timeout_milliseconds=9)) == {"routes", "whole", "weights"}, (
        "weights are of one version"
    )


def test_who_is_not_asked_makes_nobody_wait_longer() -> None:
    """The candidate may take seven seconds."""
    alone = replace(SPEC, split=((STABLE.name, 100),))
    hosts = {host.name: host for host in configuration(alone).virtual_hosts}
    _, route = hosts["demo/digits"].routes
    assert [(c.name, c.weight.value) for c in route.route.weighted_clusters.clusters] == [
        ("demo/digits-stable-aaaa1111", 100),
        ("demo/digits-candidate-bbbb2222", 0),
    ]
    assert route.route.timeout.ToMilliseconds() == STABLE.timeout_milliseconds


def test_sticky_users_have_their_places_in_the_routes() -> None:
    places = ((STABLE.name, 90), (CANDIDATE.name, 5), (STABLE.name, 5))
    made = build.pieces(replace(SPEC, sticky=Sticky(header="x-user"), split=places))
    assert made.weights == b""
    assert made.routes == made.whole


def test_the_version_of_all_routes_does_not_depend_on_their_order() -> None:
    specs = [route_spec(backend(model=name), name=name) for name in "abc"]
    routes = {(spec.namespace, spec.name): build.pieces(spec).routes for spec in specs}
    backwards = dict(reversed(routes.items()))
    version = build.routes_version(routes)
    assert build.routes_version(backwards) == version
    one, other = (build.route_configuration(build.MAIN, version, r) for r in (routes, backwards))
    assert one == other


@pytest.mark.parametrize(
    ("replicas", "max_in_flight", "limit"),
    [(0, 9, 1024), (1, 9, 1024), (28, 9, 1024), (29, 9, 2048), (1000, 1064, 8388608)],
    ids=str,
)
def test_the_breaker_is_wide_and_rarely_moves(replicas: int, max_in_flight: int, limit: int) -> None:
    made = backend(ports=range(1, replicas + 1), max_in_flight=max_in_flight)
    assert clusters.breaker(made) == limit
    assert limit >= clusters.BREAKER_HEADROOM * replicas * max_in_flight


BAD = [
    pytest.param(replace(SPEC, namespace="a/b"), "DNS labels", id="slash in the namespace"),
    pytest.param(replace(SPEC, name="a.b"), "DNS labels", id="dot in the name: another's domain"),
    pytest.param(replace(SPEC, name=""), "DNS labels", id="no name"),
    pytest.param(replace(SPEC, name="a\n"), "DNS labels", id="line end"),
    pytest.param(replace(SPEC, direct=(("a/b", STABLE.name),)), "variant", id="slash in a variant"),
    pytest.param(replace(SPEC, backends=(STABLE, STABLE)), "same name", id="a backend twice"),
    pytest.param(replace(SPEC, split=(("gone", 100),)), "unknown backend 'gone'", id="weight for nobody"),
    pytest.param(replace(SPEC, direct=(("stable", "gone"),)), "unknown backend", id="variant of nobody"),
    pytest.param(replace(SPEC, split=((STABLE.name, 99),)), "sum to 100", id="weights of 99"),
    pytest.param(replace(SPEC, split=((STABLE.name, 100), (CANDIDATE.name, 0))), "positive", id="weight 0"),
    pytest.param(replace(SPEC, split=((STABLE.name, 50), (STABLE.name, 50))), "two weights", id="two weights"),
    pytest.param(replace(SPEC, rules=(Rule("gone", "x-a"),)), "unknown backend", id="rule for nobody"),
    pytest.param(replace(SPEC, rules=(Rule(STABLE.name, "X-A"),)), "name of a header", id="rule by no header"),
    pytest.param(replace(SPEC, sticky=Sticky(header="a:b")), "name of a header", id="sticky by no header"),
    pytest.param(replace(SPEC, sticky=Sticky(cookie="a.*")), "name of a cookie", id="sticky by no cookie"),
    pytest.param(route_spec(replace(STABLE, name="a/b")), "DNS name", id="slash in a backend"),
    pytest.param(route_spec(replace(STABLE, timeout_milliseconds=0)), "positive", id="no timeout"),
    pytest.param(route_spec(replace(STABLE, max_in_flight=0)), "positive", id="nothing in flight"),
    pytest.param(route_spec(replace(STABLE, endpoints=frozenset({Endpoint("pod", 1)}))), "IP", id="host name"),
    pytest.param(route_spec(replace(STABLE, endpoints=frozenset({Endpoint("::1", 0)}))), "port 0", id="port 0"),
]


@pytest.mark.parametrize(("spec", "words"), BAD)
def test_what_envoy_would_refuse_or_mix_up_is_found_before(spec: RouteSpec, words: str) -> None:
    assert words in (check.problem(spec) or "")


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        route_spec(),
        route_spec(backend(ports=[]), weights=(0,)),
        route_spec(replace(STABLE, endpoints=frozenset({Endpoint("fd00::1", 8080)}))),
    ],
    ids=["split", "nothing", "no endpoint, no weight", "IPv6"],
)
def test_what_can_be_programmed_is_not_refused(spec: RouteSpec) -> None:
    assert check.problem(spec) is None


@given(
    st.text("abc", min_size=1, max_size=200),
    st.text("0123", min_size=1, max_size=16),
    st.lists(st.binary(max_size=300), max_size=5),
)
def test_resources_are_written_as_protobuf_writes_them(name: str, version: str, parts: list[bytes]) -> None:
    body = Any(type_url=wire.ROUTES, value=b"".join(parts))
    message = discovery_pb2.Resource(name=name, version=version, resource=body)
    expected = discovery_pb2.DeltaDiscoveryResponse(resources=[message])
    written = wire.wrapped(wire.ROUTES, name, version, parts)
    assert discovery_pb2.DeltaDiscoveryResponse.FromString(written.wire) == expected


@given(st.binary(max_size=300))
def test_fields_with_high_numbers_are_written_as_protobuf_writes_them(payload: bytes) -> None:
    matcher = matcher_pb2.Matcher(on_no_match=matcher_pb2.Matcher.OnMatch(action={"name": payload.hex()}))
    host = route_components_pb2.VirtualHost(matcher=matcher)
    number = route_components_pb2.VirtualHost.MATCHER_FIELD_NUMBER
    assert wire.field(number, wire.serialise(matcher)) == wire.serialise(host)


def test_responses_hold_their_resources_and_what_is_gone() -> None:
    resources = [wire.wrapped(wire.CLUSTER, name, "1", [b""]) for name in "ab"]
    response = discovery_pb2.DeltaDiscoveryResponse.FromString(wire.response(wire.CLUSTER, "7", resources, ["c"]))
    assert (response.type_url, response.nonce, list(response.removed_resources)) == (wire.CLUSTER, "7", ["c"])
    assert [resource.name for resource in response.resources] == ["a", "b"]
