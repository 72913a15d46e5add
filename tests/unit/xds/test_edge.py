"""What Envoy is told of the edge: its listeners, and who may pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.http.composite.v3 import composite_pb2
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2 as jwt_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct
from xds.type.matcher.v3 import matcher_pb2

from inflight_operator.xds import build, check, tokens, wire
from inflight_operator.xds.build import MAIN
from inflight_operator.xds.listener import TLS, Ports, listeners, used_by
from inflight_operator.xds.model import Issuer, RouteSpec
from route_specs import backend, route_spec

ACCOUNTS = Issuer(
    "https://kubernetes.default.svc",
    ("inflight", "inflight/demo/digits"),
    "KEYS",
    ("system:serviceaccount:demo:*", "system:serviceaccount:batch:runner"),
)
EXTERNAL = Issuer("https://login.example/", ("models",), "THEIRS")
OPEN = route_spec(backend(ports=[8080]))
CLOSED = replace(OPEN, access=(ACCOUNTS, EXTERNAL))


def listener(resource: wire.Resource) -> listener_pb2.Listener:
    (found,) = discovery_pb2.DeltaDiscoveryResponse.FromString(resource.wire).resources
    return listener_pb2.Listener.FromString(found.resource.value)


def plain_data(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return found


def test_both_listeners_keep_the_same_rules() -> None:
    plain, encrypted = map(listener, listeners(Ports(80, 443, "/certificate.yaml")))
    assert [(each.name, each.address.socket_address.port_value) for each in (plain, encrypted)] == [
        (MAIN, 80),
        (TLS, 443),
    ]
    (one,), (other,) = plain.filter_chains, encrypted.filter_chains
    assert list(one.filters) == list(other.filters)
    assert plain.per_connection_buffer_limit_bytes == encrypted.per_connection_buffer_limit_bytes
    assert not one.HasField("transport_socket")
    assert other.transport_socket_connect_timeout.seconds == 10
    context = tls_pb2.DownstreamTlsContext.FromString(other.transport_socket.typed_config.value)
    assert plain_data(context)["common_tls_context"] == {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [
            {
                "name": "edge",
                "sds_config": {
                    "path_config_source": {"path": "/certificate.yaml"},
                    "resource_api_version": "V3",
                },
            }
        ],
        "alpn_protocols": ["h2", "http/1.1"],
    }


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        pytest.param({}, {MAIN}, id="says nothing: a router from before"),
        pytest.param({"tls": {"secretName": "", "only": False}}, {MAIN}, id="no certificate"),
        pytest.param({"tls": {"secretName": "edge", "only": False}}, {MAIN, TLS}, id="certificate"),
        pytest.param({"tls": {"secretName": "edge", "only": True}}, {TLS}, id="TLS only"),
    ],
)
def test_a_router_gets_the_listeners_that_it_can_have(metadata: dict[str, Any], names: set[str]) -> None:
    assert used_by(ParseDict(metadata, Struct())) == names


def routes(spec: RouteSpec) -> list[route_components_pb2.VirtualHost | route_components_pb2.Route]:
    """Everything that may carry an answer to "who may ask": the host, and each route by path."""
    pieces = build.pieces(spec).routes
    (host,) = route_pb2.RouteConfiguration.FromString(pieces.host).virtual_hosts
    paths = matcher_pb2.Matcher.MatcherTree.MatchMap.FromString(pieces.paths).map.values()
    return [host, *(route_components_pb2.Route.FromString(match.action.typed_config.value) for match in paths)]


def test_an_open_model_deployment_says_nothing_about_tokens() -> None:
    assert len(routes(OPEN)) == 3
    assert not any(each.typed_per_filter_config for each in routes(OPEN))


def test_every_way_to_a_closed_one_asks_for_a_token() -> None:
    found = [each.typed_per_filter_config for each in routes(CLOSED)]
    assert len(found) == 3
    assert all(config == tokens.on_route(CLOSED.access) for config in found)
    assert build.pieces(CLOSED).routes.version != build.pieces(OPEN).routes.version


def filters() -> list[Any]:
    """The two filters of a closed route."""
    (config,) = tokens.on_route(CLOSED.access).values()
    per_route = extension_matcher_pb2.ExtensionWithMatcherPerRoute.FromString(config.value)
    action = per_route.xds_matcher.on_no_match.action.typed_config
    chain = composite_pb2.ExecuteFilterAction.FromString(action.value).filter_chain.typed_config
    return [
        kind.FromString(filter_.typed_config.value)
        for kind, filter_ in zip((jwt_pb2.JwtAuthentication, rbac_pb2.RBAC), chain, strict=True)
    ]


def test_the_token_is_checked_by_either_issuer_and_goes_no_further() -> None:
    common = {
        "from_headers": [{"name": "Authorization", "value_prefix": "Bearer "}],
        "require_expiration": True,
        "failed_status_in_metadata": "failed",
    }
    assert plain_data(filters()[0]) == {
        "providers": {
            "0": {
                "issuer": "https://kubernetes.default.svc",
                "audiences": ["inflight", "inflight/demo/digits"],
                "local_jwks": {"inline_string": "KEYS"},
                "payload_in_metadata": "0",
                **common,
            },
            "1": {
                "issuer": "https://login.example/",
                "audiences": ["models"],
                "local_jwks": {"inline_string": "THEIRS"},
                "payload_in_metadata": "1",
                **common,
            },
        },
        "rules": [
            {
                "match": {"prefix": "/"},
                "requires": {"requires_any": {"requirements": [{"provider_name": "0"}, {"provider_name": "1"}]}},
            }
        ],
    }
    assert not any(provider.forward for provider in filters()[0].providers.values())


def claim(place: str, name: str, value: dict[str, Any]) -> dict[str, Any]:
    matcher = {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": place}, {"key": name}], "value": value}
    return {"sourced_metadata": {"metadata_matcher": matcher}}


def test_then_its_bearer_must_be_among_those_who_may_ask() -> None:
    (policy,) = plain_data(filters()[1])["rules"]["policies"].values()
    assert policy == {
        "permissions": [{"any": True}],
        "principals": [
            claim("0", "sub", {"string_match": {"prefix": "system:serviceaccount:demo:"}}),
            claim("0", "sub", {"string_match": {"exact": "system:serviceaccount:batch:runner"}}),
            claim("1", "iss", {"present_match": True}),
        ],
    }


@pytest.mark.parametrize(
    ("access", "words"),
    [
        pytest.param((), "nobody may ask", id="no issuer"),
        pytest.param((replace(EXTERNAL, issuer=""),), "needs a name", id="any issuer"),
        pytest.param((replace(EXTERNAL, audiences=()),), "audiences", id="any audience"),
        pytest.param((replace(EXTERNAL, audiences=("a", "")),), "audiences", id="empty audience"),
        pytest.param((replace(ACCOUNTS, subjects=()),), "subjects", id="no subject"),
        pytest.param((replace(ACCOUNTS, subjects=("",)),), "subjects", id="empty subject"),
    ],
)
def test_what_would_let_in_more_than_it_says_is_refused(access: tuple[Issuer, ...], words: str) -> None:
    assert words in (check.problem(replace(OPEN, access=access)) or "")


def test_keys_that_are_not_known_are_no_reason_to_refuse_the_routes() -> None:
    assert check.problem(replace(OPEN, access=(replace(ACCOUNTS, keys=""), EXTERNAL))) is None
