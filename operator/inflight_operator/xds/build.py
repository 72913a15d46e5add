"""RouteSpec in, Envoy resources out: every protobuf message about a ModelDeployment is made here.

Pure: no clock, socket or log. Each resource is serialised once, with a version that is the digest of its
content, so that the same world has the same versions after a restart of the operator. Protobuf messages
concatenate, so the route configuration of all ModelDeployments is joined from their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.type.matcher.v3 import http_inputs_pb2, string_pb2
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import UInt32Value, UInt64Value
from xds.core.v3 import extension_pb2 as xds_extension_pb2
from xds.type.matcher.v3 import matcher_pb2

from . import clusters, tokens
from .model import RouteSpec
from .wire import (
    ROUTES,
    Resource,
    digest,
    head,
    milliseconds,
    packed,
    serialise,
    wrapped,
)

Key = tuple[str, str]
"""(namespace, name) of a ModelDeployment."""

MAIN = "inflight"
"""The route configuration that serves."""
TRIAL = "inflight-trial"
"""The route configuration that no connection reaches: changed routes are tried on it before they are merged. Its
listener is in the chart's bootstrap.yaml, so that the router asks for it before it has heard of any that serves."""

RETRY_BODY_BYTES = 256 * 1024
"""How much of a body is kept for a retry. More than a connection's buffer limit: what has been read of a
large body while connecting can then always be sent again."""
RETRIES = 5
RETRY_WAIT, MAX_RETRY_WAIT = milliseconds(1), milliseconds(25)
STREAM_IDLE_SECONDS = 30
"""A request that moves no byte for this long is given up, unless its own timeout is longer."""


@dataclass(frozen=True, slots=True)
class Routes:
    """One ModelDeployment's part of the route configuration.

    `host` is a RouteConfiguration that holds only its virtual host, `paths` a MatchMap (of path prefixes) that
    holds only its path routes, `clusters` the names of the clusters that they lead to.
    """

    version: str
    host: bytes
    paths: bytes
    clusters: frozenset[str]


@dataclass(frozen=True, slots=True)
class Pieces:
    """All of one ModelDeployment's resources; clusters and endpoints by cluster name."""

    routes: Routes
    clusters: Mapping[str, Resource]
    endpoints: Mapping[str, Resource]


def pieces(spec: RouteSpec, cluster_domain: str = "cluster.local") -> Pieces:
    """All resources of a RouteSpec that has no `check.problem`."""
    resources: dict[str, Resource] = {}
    assignments: dict[str, Resource] = {}
    for backend in spec.backends:
        found = clusters.of(spec.namespace, backend)
        resources.update(found[0])
        assignments.update(found[1])
    return Pieces(routes(spec, cluster_domain), resources, assignments)


def routes(spec: RouteSpec, cluster_domain: str) -> Routes:
    """The virtual host of one ModelDeployment and its routes by path."""
    timeouts = {b.name: b.timeout_milliseconds for b in spec.backends}
    root = f"/{spec.namespace}/{spec.name}/"
    access = tokens.on_route(spec.access)
    host = route_components_pb2.VirtualHost(
        name=f"{spec.namespace}/{spec.name}",
        domains=[
            f"{spec.name}.{spec.namespace}",
            f"{spec.name}.{spec.namespace}.svc",
            f"{spec.name}.{spec.namespace}.svc.{cluster_domain}",
        ],
        routes=[_grpc_route(spec.namespace, spec.split, timeouts), _route(spec.namespace, "/", spec.split, timeouts)],
        typed_per_filter_config=access,
        **_virtual_host_options(),
    )
    direct = [
        _route(spec.namespace, f"{root}variants/{variant}/", ((backend, 100),), timeouts)
        for variant, backend in spec.direct
    ]
    # Without the exception an unknown variant would reach the split with a path that it doesn't have.
    main = _route(spec.namespace, root, spec.split, timeouts, f"{root}variants")
    host_wire = serialise(route_pb2.RouteConfiguration(virtual_hosts=[host]))
    for route in (*direct, main):
        for name, config in access.items():
            route.typed_per_filter_config[name].CopyFrom(config)
    paths = {route.match.prefix: _on_match(route) for route in (*direct, main)}
    paths_wire = serialise(matcher_pb2.Matcher.MatcherTree.MatchMap(map=paths))
    targets = {clusters.cluster_name(spec.namespace, name) for name, _ in spec.split}
    direct_targets = {clusters.cluster_name(spec.namespace, name) for _, name in spec.direct}
    return Routes(
        digest(host_wire, paths_wire),
        host_wire,
        paths_wire,
        frozenset(targets | set(map(clusters.grpc_name, targets)) | direct_targets),
    )


def _route(
    namespace: str, prefix: str, split: tuple[tuple[str, int], ...], timeouts: Mapping[str, int], *hidden: str
) -> route_components_pb2.Route:
    """One route; a prefix other than / is stripped. What is hidden falls through to 404."""
    match = route_components_pb2.RouteMatch(
        prefix=prefix,
        headers=[
            route_components_pb2.HeaderMatcher(
                name=":path", string_match=string_pb2.StringMatcher(prefix=path), invert_match=True
            )
            for path in (f"{prefix}metrics", *hidden)
        ],
    )
    targets = [(clusters.cluster_name(namespace, name), weight) for name, weight in split]
    return _to(match, targets, _timeout(split, timeouts), "" if prefix == "/" else "/")


def _grpc_route(
    namespace: str, split: tuple[tuple[str, int], ...], timeouts: Mapping[str, int]
) -> route_components_pb2.Route:
    """The route of gRPC calls. Their paths are the protocol's own: the host alone says whom they are for."""
    match = route_components_pb2.RouteMatch(prefix="/", grpc=route_components_pb2.RouteMatch.GrpcRouteMatchOptions())
    targets = [(clusters.grpc_name(clusters.cluster_name(namespace, name)), weight) for name, weight in split]
    return _to(match, targets, _timeout(split, timeouts), "")


def _timeout(split: tuple[tuple[str, int], ...], timeouts: Mapping[str, int]) -> int:
    return max((timeouts[name] for name, _ in split), default=0)


def _to(
    match: route_components_pb2.RouteMatch, targets: Sequence[tuple[str, int]], timeout: int, rewrite: str
) -> route_components_pb2.Route:
    """Requests that match go to these clusters by weight; to none: refused."""
    if not targets:  # the body and Retry-After come from the listener's local replies
        unavailable = route_components_pb2.DirectResponseAction(status=503)
        return route_components_pb2.Route(match=match, direct_response=unavailable)
    action = route_components_pb2.RouteAction(
        timeout=milliseconds(timeout),
        idle_timeout=milliseconds(max(STREAM_IDLE_SECONDS * 1000, timeout + 5000)),
        prefix_rewrite=rewrite,
    )
    if len(targets) == 1:
        action.cluster = targets[0][0]
    else:
        for name, weight in targets:
            action.weighted_clusters.clusters.add(name=name, weight=UInt32Value(value=weight))
    return route_components_pb2.Route(match=match, route=action)


def _on_match(route: route_components_pb2.Route) -> matcher_pb2.Matcher.OnMatch:
    action = xds_extension_pb2.TypedExtensionConfig(name="route", typed_config=packed(route))
    return matcher_pb2.Matcher.OnMatch(action=action)


def route_configuration(name: str, version: str, by_key: Mapping[Key, Routes]) -> Resource:
    """All given ModelDeployments' routes as one RouteConfiguration; `version` is their `routes_version`.

    Hosts are found by Envoy in a hash table, paths in a prefix tree: a list of routes it would walk through for
    each request, which took 0.5 ms at 1,000 ModelDeployments.
    """
    ordered = [by_key[key] for key in sorted(by_key)]
    catch_all = [_CATCH_ALL]
    if paths := [r.paths for r in ordered]:
        tree = _enclosed(_PATH, matcher_pb2.Matcher.MatcherTree.PREFIX_MATCH_MAP_FIELD_NUMBER, paths)
        matcher = _enclosed(b"", matcher_pb2.Matcher.MATCHER_TREE_FIELD_NUMBER, tree)
        catch_all = _enclosed(_CATCH_ALL, route_components_pb2.VirtualHost.MATCHER_FIELD_NUMBER, matcher)
    hosts = b"".join((_route_configuration_head(name), *(r.host for r in ordered)))
    body = _enclosed(hosts, route_pb2.RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER, catch_all)
    return wrapped(ROUTES, name, version, body)


def _enclosed(before: bytes, field: int, parts: Sequence[bytes]) -> list[bytes]:
    """A message that begins with `before` and has another one, of these parts, as its last field."""
    return [before, head(field, sum(map(len, parts))), *parts]


def routes_version(by_key: Mapping[Key, Routes]) -> str:
    """The version of a route configuration: from its parts' versions, which is cheaper than from its bytes."""
    return digest(_HEAD_DIGEST, "".join([by_key[key].version for key in sorted(by_key)]).encode())


def _route_configuration_head(name: str) -> bytes:
    """Response headers say who answered, from the cluster's metadata; a server can't say otherwise."""
    headers = [
        base_pb2.HeaderValueOption(
            header=base_pb2.HeaderValue(key=f"x-inflight-{label}", value=f"%CLUSTER_METADATA(inflight:{label})%"),
            append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
        )
        for label in ("variant", "revision")
    ]
    return serialise(
        route_pb2.RouteConfiguration(name=name, response_headers_to_add=headers, ignore_port_in_host_matching=True)
    )


def _virtual_host_options() -> dict[str, Message]:
    """Retry only what no server can have begun to work on, and on another pod.

    A dead pod is ejected by its first failed connection, but a few hundred microseconds later than the first
    retry: the last ones wait for it.
    """
    previous = route_components_pb2.RetryPolicy.RetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts",
        typed_config=packed(previous_hosts_pb2.PreviousHostsPredicate()),
    )
    return {
        "retry_policy": route_components_pb2.RetryPolicy(
            retry_on="connect-failure,refused-stream,reset-before-request",
            num_retries=UInt32Value(value=RETRIES),
            retry_host_predicate=[previous],
            host_selection_retry_max_attempts=3,
            # At once: while no request is under way nothing slows the client down, and a large body would
            # outgrow what is kept for a retry.
            retry_back_off=route_components_pb2.RetryPolicy.RetryBackOff(
                base_interval=RETRY_WAIT, max_interval=MAX_RETRY_WAIT
            ),
        ),
        "request_body_buffer_limit": UInt64Value(value=RETRY_BODY_BYTES),
    }


_PATH = serialise(
    matcher_pb2.Matcher.MatcherTree(
        input=xds_extension_pb2.TypedExtensionConfig(
            name="path", typed_config=packed(http_inputs_pb2.HttpRequestHeaderMatchInput(header_name=":path"))
        )
    )
)
_CATCH_ALL = serialise(route_components_pb2.VirtualHost(name="*", domains=["*"], **_virtual_host_options()))
_HEAD_DIGEST = _route_configuration_head(MAIN) + _CATCH_ALL + _PATH
