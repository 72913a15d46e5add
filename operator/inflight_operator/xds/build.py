"""RouteSpec in, Envoy resources out: every protobuf message about a ModelDeployment is made here.

Pure: no clock, socket or log. Each resource is serialised once, with a version that is the digest of its
content, so that the same world has the same versions after a restart of the operator. Protobuf messages
concatenate, so the route configuration of all ModelDeployments is joined from their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.type.matcher.v3 import http_inputs_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import UInt64Value
from xds.core.v3 import extension_pb2 as xds_extension_pb2
from xds.type.matcher.v3 import matcher_pb2

from . import clusters, retries, tokens, weights
from .choice import Below, shared
from .model import Retries, RouteSpec
from .wire import (
    ROUTES,
    Resource,
    digest,
    head,
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


@dataclass(frozen=True, slots=True)
class Routes:
    """One ModelDeployment's part of the route configuration.

    `host` is a RouteConfiguration that holds only its virtual host, `paths` a MatchMap (of path prefixes) that
    holds only its path routes, `clusters` the names of the clusters that they lead to, `hosts` the domains that may
    have been another's before.
    """

    version: str
    host: bytes
    paths: bytes
    clusters: frozenset[str]
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Pieces:
    """All of one ModelDeployment's resources; clusters and endpoints by cluster name.

    `routes` are for routers that take weights from the runtime, where they are `weights`: another weight is another
    version only of `whole`, the same routes for a router without.
    """

    routes: Routes
    whole: Routes
    weights: bytes
    clusters: Mapping[str, Resource]
    endpoints: Mapping[str, Resource]


def pieces(spec: RouteSpec, cluster_domain: str = "cluster.local") -> Pieces:
    """All resources of a RouteSpec that has no `check.problem`."""
    resources: dict[str, Resource] = {}
    assignments: dict[str, Resource] = {}
    for backend in spec.backends:
        mirrored = spec.mirror is not None and spec.mirror.backend == backend.name
        copies = spec.mirror.max_in_flight if spec.mirror and mirrored else 0
        found = clusters.of(spec.namespace, backend, spec.retries, copies)
        resources.update(found[0])
        assignments.update(found[1])
    return Pieces(*routes(spec, cluster_domain), resources, assignments)


def routes(spec: RouteSpec, cluster_domain: str) -> tuple[Routes, Routes, bytes]:
    """See Pieces: the virtual host of one ModelDeployment and its routes by path, twice, and their weights."""
    access = tokens.on_route(spec.access)
    host = _host(spec, cluster_domain, access)
    by_path = _by_path(spec, access)
    found = Routes("", *_written(host, by_path), _targets(spec), frozenset(spec.hosts))
    found = replace(found, version=digest(found.host, found.paths))
    told = weights.put([*host.routes, *chain.from_iterable(by_path.values())], found.version, _weights(spec))
    if not told.fields:
        return found, found, b""
    host_wire, paths_wire = _written(host, by_path)
    found = replace(found, host=host_wire, paths=paths_wire)
    return found, replace(found, version=digest(host_wire, paths_wire)), serialise(told)


def _host(spec: RouteSpec, cluster_domain: str, access: Mapping[str, Any]) -> route_components_pb2.VirtualHost:
    return route_components_pb2.VirtualHost(
        name=f"{spec.namespace}/{spec.name}",
        domains=[
            f"{spec.name}.{spec.namespace}",
            f"{spec.name}.{spec.namespace}.svc",
            f"{spec.name}.{spec.namespace}.svc.{cluster_domain}",
            *spec.hosts,
        ],
        routes=[*Below(spec, grpc=True).all(), *Below(spec).all()],
        typed_per_filter_config=access,
        **_virtual_host_options(),
    )


def _by_path(spec: RouteSpec, access: Mapping[str, Any]) -> dict[str, list[route_components_pb2.Route]]:
    root = f"/{spec.namespace}/{spec.name}/"
    by_path = {
        f"{root}variants/{variant}/": [Below(spec, f"{root}variants/{variant}/").to(backend)]
        for variant, backend in spec.direct
    }
    # Without the exception an unknown variant would reach the split with a path that it doesn't have.
    by_path[root] = Below(spec, root, hidden=(f"{root}variants",)).all()
    for route in chain.from_iterable(by_path.values()):
        for name, config in access.items():
            route.typed_per_filter_config[name].CopyFrom(config)
    return by_path


def _written(
    host: route_components_pb2.VirtualHost, by_path: Mapping[str, Sequence[route_components_pb2.Route]]
) -> tuple[bytes, bytes]:
    """The two parts of Routes."""
    paths = {prefix: _on_match(found) for prefix, found in by_path.items()}
    return (
        serialise(route_pb2.RouteConfiguration(virtual_hosts=[host])),
        serialise(matcher_pb2.Matcher.MatcherTree.MatchMap(map=paths)),
    )


def _weights(spec: RouteSpec) -> dict[str, int]:
    """By cluster."""
    given = dict(spec.split)
    found = {clusters.cluster_name(spec.namespace, name): given.get(name, 0) for name in shared(spec)}
    return found | {clusters.grpc_name(name): weight for name, weight in found.items()}


def _targets(spec: RouteSpec) -> frozenset[str]:
    """The clusters that the routes lead to. Those to one variant by its path are not for gRPC."""
    both = {*shared(spec), *(rule.backend for rule in spec.rules)}
    found = {clusters.cluster_name(spec.namespace, name) for name in both}
    if spec.mirror and spec.split:
        found.add(clusters.mirror_name(clusters.cluster_name(spec.namespace, spec.mirror.backend)))
    direct = {clusters.cluster_name(spec.namespace, name) for _, name in spec.direct}
    return frozenset(found | set(map(clusters.grpc_name, found)) | direct)


def _on_match(found: Sequence[route_components_pb2.Route]) -> matcher_pb2.Matcher.OnMatch:
    one = found[0] if len(found) == 1 else route_components_pb2.RouteList(routes=found)
    action = xds_extension_pb2.TypedExtensionConfig(name="route", typed_config=packed(one))
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
    """What holds for all routes that say nothing else."""
    return {
        "retry_policy": retries.policy(Retries()),
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
