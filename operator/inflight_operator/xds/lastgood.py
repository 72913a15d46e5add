"""The last known good configuration as files, for a router that starts while no operator answers. Pure.

It is what a router has accepted, with the Services of the revisions in the place of their pods: kube-proxy keeps those
addresses true without us, so the files change with specs and weights only (docs/adr/0014).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import config_source_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any

from .build import MAIN, Key, Routes, route_configuration, routes_version
from .clusters import counted_as, over_grpc
from .model import Endpoint
from .wire import CLUSTER, LISTENER, ROUTES, Resource, digest, packed, serialise, socket_address

DIRECTORY: Final = "/tmp/inflight-last-good"  # noqa: S108  # nosec B108 # in the router's own container
"""Where the router's start.sh unpacks the files."""


@dataclass(frozen=True)
class Good:
    """What one router has accepted."""

    routes: Mapping[Key, Routes]
    clusters: Mapping[str, Resource]
    listeners: Iterable[Resource]

    def version(self, services: Mapping[str, Endpoint]) -> str:
        """Of the files that `files` would make."""
        names = sorted(self.clusters)
        parts = [routes_version(self.routes), *(self.clusters[name].version for name in names)]
        parts += [f"{name} {services.get(name)}" for name in names]
        return digest("\n".join(parts).encode(), *(listener.wire for listener in self.listeners))


def files(good: Good, services: Mapping[str, Endpoint], directory: str = DIRECTORY) -> dict[str, bytes]:
    """DiscoveryResponses by file name; `services` are the addresses of clusters, by cluster name."""
    version = good.version(services)
    routes = route_configuration(MAIN, version, good.routes)
    return {
        "cds.pb": _response(CLUSTER, version, [_cluster(r, services) for _, r in sorted(good.clusters.items())]),
        "rds.pb": _response(ROUTES, version, [_content(routes)]),
        "lds.pb": _response(LISTENER, version, [_listener(r, f"{directory}/rds.pb") for r in good.listeners]),
    }


def _response(type_url: str, version: str, resources: list[Any]) -> bytes:
    made = discovery_pb2.DiscoveryResponse(type_url=type_url, version_info=version, resources=resources)
    return serialise(made)


def _content(resource: Resource) -> Any:
    found: Any = discovery_pb2.DeltaDiscoveryResponse.FromString(resource.wire).resources[0].resource
    return found


def _cluster(resource: Resource, services: Mapping[str, Endpoint]) -> Any:
    """The same cluster with one fixed address; without one it has no endpoint, and is answered for with 503."""
    cluster = cluster_pb2.Cluster.FromString(_content(resource).value)
    if cluster.type != cluster_pb2.Cluster.EDS:
        return _content(resource)
    cluster.ClearField("eds_cluster_config")
    cluster.ClearField("lrs_server")
    cluster.type = cluster_pb2.Cluster.STATIC
    cluster.load_assignment.CopyFrom(endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster.name))
    if service := services.get(cluster.name):
        address = socket_address(service.address, service.port)
        host = endpoint_components_pb2.LbEndpoint(endpoint=endpoint_components_pb2.Endpoint(address=address))
        cluster.load_assignment.endpoints.add(lb_endpoints=[host])
    return packed(cluster)


def _listener(resource: Resource, routes: str) -> Any:
    """The same listener, which reads its routes from a file."""
    listener = listener_pb2.Listener.FromString(_content(resource).value)
    source = config_source_pb2.ConfigSource(
        path_config_source=config_source_pb2.PathConfigSource(path=routes), resource_api_version=config_source_pb2.V3
    )
    for chain in listener.filter_chains:
        for one in chain.filters:
            if one.typed_config.Is(hcm_pb2.HttpConnectionManager.DESCRIPTOR):
                manager = hcm_pb2.HttpConnectionManager.FromString(one.typed_config.value)
                manager.rds.config_source.CopyFrom(source)
                one.typed_config.CopyFrom(packed(manager))
    return packed(listener)


def services(
    addresses: Mapping[str, str], http_port: int, grpc_port: int, clusters: Iterable[str]
) -> dict[str, Endpoint]:
    """The address of each cluster that has one, from those of its revision's Service, by the HTTP cluster's name."""
    found = {}
    for name in clusters:
        if address := addresses.get(counted_as(name)):
            found[name] = Endpoint(address, grpc_port if over_grpc(name) else http_port)
    return found
