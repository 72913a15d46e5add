"""Clusters and their endpoints: how the routers reach the pods of one revision, over each of two protocols.

Pure: no clock, socket or log.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2, extension_pb2, health_check_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.load_balancing_policies.common.v3 import common_pb2 as lb_common_pb2
from envoy.extensions.load_balancing_policies.least_request.v3 import least_request_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.wrappers_pb2 import UInt32Value, UInt64Value

from . import retries, zones
from .model import Backend, Endpoint, Retries
from .wire import CLUSTER, ENDPOINTS, Resource, ads, milliseconds, packed, resource, socket_address

CONNECT_TIMEOUT_MILLISECONDS = 500
"""A pod in the same cluster answers a SYN in well under a millisecond; later than this it is gone."""
UPSTREAM_IDLE_SECONDS = 4
"""Less than the keep-alive of common servers (uvicorn and node: 5 s), so that the router closes first and
never sends a request into a connection that the server is closing."""
EJECTION_SECONDS = 1
MAX_EJECTION_SECONDS = 10
_GRPC = "/grpc"
_MIRROR = "/mirror"
ROUTERS = "inflight-router"
"""The cluster of the routers themselves, in their bootstrap: nothing is sent to it, its endpoints tell in which zones
they are. A backend's name has a slash, so none is called like this."""
BREAKER_FLOOR = 1024
BREAKER_HEADROOM = 4


def cluster_name(namespace: str, backend: str) -> str:
    """The Envoy name of a backend. Neither part can hold a slash, so two tenants' names never meet."""
    return f"{namespace}/{backend}"


def grpc_name(cluster: str) -> str:
    """The cluster of the same pods' gRPC port. A backend's own name has no slash, so none is called like this."""
    return cluster + _GRPC


def mirror_name(cluster: str) -> str:
    """The cluster of the same pods for copies of requests, which have a limit of their own."""
    return cluster + _MIRROR


def over_grpc(cluster: str) -> bool:
    """Whether it is one of gRPC ports."""
    return cluster.endswith(_GRPC)


def counted_as(cluster: str) -> str:
    """The cluster that a cluster's requests count for: a backend's demand is that of both ports, copies included."""
    return cluster.removesuffix(_GRPC).removesuffix(_MIRROR)


def of(
    namespace: str, backend: Backend, effort: Retries, copies: int = 0
) -> tuple[dict[str, Resource], dict[str, Resource]]:
    """(clusters, endpoints) of one backend, by cluster name; with those for `copies` at once, where it gets any."""
    http = cluster_name(namespace, backend.name)
    names = {http: breaker(backend)} | ({mirror_name(http): copies} if copies else {})
    at_grpc = replace(backend, endpoints=frozenset(replace(e, port=backend.grpc_port) for e in backend.endpoints))
    made, found = {}, {}
    for name, limit in names.items():
        for each, there in ((name, backend), (grpc_name(name), at_grpc)):
            made[each] = cluster(each, there, limit, effort)
            found[each] = endpoints(each, zones.told(there.endpoints), there.degraded)
    return made, found


def breaker(backend: Backend) -> int:
    """How many requests the router lets be open to a backend: far more than its pods can hold (the pods refuse
    the rest themselves), in powers of two, so that a pod more or less almost never changes the cluster:
    Envoy replaces a changed cluster with new connections and new load counters.
    """
    capacity = BREAKER_HEADROOM * len(backend.endpoints) * backend.max_in_flight
    return max(BREAKER_FLOOR, 1 << (capacity - 1).bit_length() if capacity else 0)


def cluster(name: str, backend: Backend, most: int, effort: Retries) -> Resource:
    """A Cluster of one backend with at most that many open requests, some of them at another try. Its metadata gives
    the response headers that say who answered."""
    limit = UInt32Value(value=most)
    labels = Struct()
    labels.update({"variant": backend.variant, "revision": backend.revision})
    return resource(
        CLUSTER,
        name,
        cluster_pb2.Cluster(
            name=name,
            type=cluster_pb2.Cluster.EDS,
            eds_cluster_config=cluster_pb2.Cluster.EdsClusterConfig(eds_config=ads()),
            connect_timeout=milliseconds(CONNECT_TIMEOUT_MILLISECONDS),
            load_balancing_policy=cluster_pb2.LoadBalancingPolicy(
                policies=[cluster_pb2.LoadBalancingPolicy.Policy(typed_extension_config=_LEAST_REQUEST)]
            ),
            common_lb_config=_EJECTED_ARE_LEFT_OUT,
            outlier_detection=_EJECT_DEAD_ENDPOINTS_OF_HEDGED if effort.hedged else _EJECT_DEAD_ENDPOINTS,
            circuit_breakers=circuit_breaker_pb2.CircuitBreakers(
                thresholds=[
                    circuit_breaker_pb2.CircuitBreakers.Thresholds(
                        max_connections=limit,
                        max_pending_requests=limit,
                        max_requests=limit,
                        retry_budget=retries.budget(effort.budget_percent),
                    )
                ]
            ),
            typed_extension_protocol_options={_HTTP_OPTIONS: _HTTP_2 if over_grpc(name) else _HTTP_1},
            metadata=base_pb2.Metadata(filter_metadata={"inflight": labels}),
            lrs_server=config_source_pb2.ConfigSource(self=config_source_pb2.SelfConfigSource()),
        ),
    )


def endpoints(
    name: str, by_zone: Mapping[str, Sequence[Endpoint]], degraded: Collection[str] = frozenset()
) -> Resource:
    """The ClusterLoadAssignment of one cluster; an empty zone is none. Degraded addresses get what the others can't
    take, once these are less than 1/1.4 of all (Envoy's overprovisioning factor)."""
    localities = [_locality(zone, there, degraded) for zone, there in by_zone.items()]
    return resource(ENDPOINTS, name, endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=localities))


def _locality(
    zone: str, ready: Sequence[Endpoint], degraded: Collection[str]
) -> endpoint_components_pb2.LocalityLbEndpoints:
    hosts = [
        endpoint_components_pb2.LbEndpoint(
            endpoint=endpoint_components_pb2.Endpoint(address=socket_address(e.address, e.port)),
            health_status=health_check_pb2.DEGRADED if e.address in degraded else health_check_pb2.UNKNOWN,
        )
        for e in ready
    ]
    locality = base_pb2.Locality(zone=zone) if zone else None
    return endpoint_components_pb2.LocalityLbEndpoints(locality=locality, lb_endpoints=hosts)


# A router keeps to its own zone as far as every replica of all zones then gets the same share. Whether it is told of
# zones at all is decided in `zones`.
_OWN_ZONE_FIRST = lb_common_pb2.LocalityLbConfig(
    zone_aware_lb_config=lb_common_pb2.LocalityLbConfig.ZoneAwareLbConfig(
        routing_enabled=percent_pb2.Percent(value=100), min_cluster_size=UInt64Value(value=1)
    )
)
# All replicas are looked at, not two by chance: a replica answers few requests at once, so a request that lands
# on a busy one waits although another is free. With four replicas of one at a time and four clients a third of
# the requests did; looking at all costs a microsecond per hundred replicas.
_LEAST_REQUEST = extension_pb2.TypedExtensionConfig(
    name="envoy.load_balancing_policies.least_request",
    typed_config=packed(
        least_request_pb2.LeastRequest(
            selection_method=least_request_pb2.LeastRequest.FULL_SCAN, locality_lb_config=_OWN_ZONE_FIRST
        )
    ),
)
# An endpoint that can't be reached holds no request, so it is the least busy one: every request would try it,
# and be sent to it again. After the first failed connection it is left out, a little longer each time.
_EJECT_DEAD_ENDPOINTS = outlier_detection_pb2.OutlierDetection(
    split_external_local_origin_errors=True,
    consecutive_local_origin_failure=UInt32Value(value=1),
    enforcing_consecutive_local_origin_failure=UInt32Value(value=100),
    enforcing_local_origin_success_rate=UInt32Value(value=0),
    # What a server answers is its own affair: a 503 of a full one is no sign of death.
    enforcing_consecutive_5xx=UInt32Value(value=0),
    enforcing_consecutive_gateway_failure=UInt32Value(value=0),
    enforcing_success_rate=UInt32Value(value=0),
    interval=Duration(seconds=1),
    base_ejection_time=Duration(seconds=EJECTION_SECONDS),
    max_ejection_time=Duration(seconds=MAX_EJECTION_SECONDS),
    max_ejection_percent=UInt32Value(value=100),
)
# A request that is asked of another pod as well counts as a failure of the first one. A slow pod may well be left out
# for a second, but any pod is slow now and then: three in a row, with no request sent between.
_EJECT_DEAD_ENDPOINTS_OF_HEDGED = outlier_detection_pb2.OutlierDetection()
_EJECT_DEAD_ENDPOINTS_OF_HEDGED.CopyFrom(_EJECT_DEAD_ENDPOINTS)
_EJECT_DEAD_ENDPOINTS_OF_HEDGED.consecutive_local_origin_failure.value = 3
# Only with no endpoint left are the ejected ones tried: the default does so when half of them are. And an endpoint is
# left out the moment that it is ejected: by default all but the first are gathered for a second, which cost every fifth
# request of a router whose zone's pods had all died.
_EJECTED_ARE_LEFT_OUT = cluster_pb2.Cluster.CommonLbConfig(
    healthy_panic_threshold=percent_pb2.Percent(value=1), update_merge_window=Duration()
)
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_HTTP_1 = packed(
    http_protocol_options_pb2.HttpProtocolOptions(
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            idle_timeout=Duration(seconds=UPSTREAM_IDLE_SECONDS)
        ),
        explicit_http_config=http_protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig(
            http_protocol_options=protocol_pb2.Http1ProtocolOptions()
        ),
    )
)
_HTTP_2 = packed(
    http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config=http_protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig(
            http2_protocol_options=protocol_pb2.Http2ProtocolOptions()
        )
    )
)
