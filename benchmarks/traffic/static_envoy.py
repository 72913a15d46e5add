"""Envoys with a static configuration, each a pod of the routers' own image and threads, to compare the routers with.

Bare: one listener, one route, one cluster, and Envoy's defaults for all else. Equal: what the operator would tell the
routers of this one ModelDeployment (listener, routes, cluster), but from a file.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import Message

from benchmarks.control.world import NAMESPACE, World
from inflight_demo.cluster import SYSTEM
from inflight_operator.xds import build, clusters, listener
from inflight_operator.xds.model import Backend, Endpoint, RouteSpec
from inflight_operator.xds.wire import Resource, milliseconds, packed, socket_address

_PORT = 8080
_READY_SECONDS = 60
_Made = TypeVar("_Made", bound=Message)


@dataclass(frozen=True)
class Running:
    """Its URL, without a slash at the end, and its pod's uid."""

    url: str
    uid: str


@asynccontextmanager
async def running(world: World, name: str, config: bootstrap_pb2.Bootstrap) -> AsyncIterator[Running]:
    """One in a pod of its own."""
    router = (await world.kube.get("Deployment", SYSTEM, "inflight-router") or {})["spec"]["template"]["spec"]
    container = router["containers"][0]
    threads = container["args"][container["args"].index("--concurrency") + 1]
    files = {"bootstrap.pb": base64.b64encode(config.SerializeToString()).decode()}
    meta = {"name": name, "namespace": NAMESPACE}
    pod = {
        "image": container["image"],
        "command": [
            "envoy",
            "--config-path",
            "/config/bootstrap.pb",
            "--disable-hot-restart",
            "--concurrency",
            threads,
        ],
        "resources": container["resources"],
        "securityContext": container["securityContext"],
        "readinessProbe": {"tcpSocket": {"port": _PORT}, "periodSeconds": 1},
    }
    spec = {
        "containers": [{"name": "envoy", **pod, "volumeMounts": [{"name": "config", "mountPath": "/config"}]}],
        "volumes": [{"name": "config", "configMap": {"name": name}}],
        "securityContext": router["securityContext"],
        "terminationGracePeriodSeconds": 1,
    }
    await world.kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "binaryData": files})
    await world.kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    try:
        await world.kube.wait_until(lambda: _ready(world, name), f"{name} ready", seconds=_READY_SECONDS)
        made = await world.kube.get("Pod", NAMESPACE, name) or {}
        yield Running(f"http://{made['status']['podIP']}:{_PORT}", made["metadata"]["uid"])
    finally:
        await world.kube.delete("Pod", NAMESPACE, name)
        await world.kube.delete("ConfigMap", NAMESPACE, name)


async def _ready(world: World, name: str) -> bool:
    pod = await world.kube.get("Pod", NAMESPACE, name) or {}
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def bare(address: str, port: int) -> bootstrap_pb2.Bootstrap:
    """Passes everything on, and does nothing else."""
    passes = hcm_pb2.HttpFilter(name="router", typed_config=packed(router_pb2.Router()))
    all_of_it = route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(prefix="/"), route=route_components_pb2.RouteAction(cluster="pod")
    )
    host = route_components_pb2.VirtualHost(name="all", domains=["*"], routes=[all_of_it])
    manager = hcm_pb2.HttpConnectionManager(
        stat_prefix="bare", http_filters=[passes], route_config=route_pb2.RouteConfiguration(virtual_hosts=[host])
    )
    return _bootstrap(manager, _static(cluster_pb2.Cluster(name="pod"), address, port))


def equal(namespace: str, name: str, address: str, port: int) -> bootstrap_pb2.Bootstrap:
    """The operator's own listener, routes and cluster of a ModelDeployment with this one pod."""
    backend = Backend(
        name=f"{name}-main-0",
        variant="main",
        revision="0",
        endpoints=frozenset({Endpoint(address, port)}),
        timeout_milliseconds=30_000,
        max_in_flight=64,
        grpc_port=8081,
    )
    spec = RouteSpec(namespace, name, (backend,), ((backend.name, 100),), (("main", backend.name),))
    pieces = build.pieces(spec)
    routes = build.route_configuration("inflight", "0", {(namespace, name): pieces.routes})
    manager = listener.connection_manager("inflight")
    manager.route_config.CopyFrom(_parsed(routes, route_pb2.RouteConfiguration))
    made = [_static(_parsed(each, cluster_pb2.Cluster), address, port) for each in pieces.clusters.values()]
    config = _bootstrap(manager, *made)
    config.static_resources.listeners[0].per_connection_buffer_limit_bytes.value = listener.CONNECTION_BUFFER_BYTES
    return config


def _parsed(made: Resource, kind: type[_Made]) -> _Made:
    (resource,) = discovery_pb2.DeltaDiscoveryResponse.FromString(made.wire).resources
    return kind.FromString(resource.resource.value)


def _static(cluster: cluster_pb2.Cluster, address: str, port: int) -> cluster_pb2.Cluster:
    cluster.ClearField("eds_cluster_config")
    cluster.ClearField("lrs_server")
    cluster.type = cluster_pb2.Cluster.STATIC
    cluster.connect_timeout.CopyFrom(milliseconds(clusters.CONNECT_TIMEOUT_MILLISECONDS))
    cluster.load_assignment.cluster_name = cluster.name
    cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint.address.CopyFrom(socket_address(address, port))
    return cluster


def _bootstrap(manager: hcm_pb2.HttpConnectionManager, *made: cluster_pb2.Cluster) -> bootstrap_pb2.Bootstrap:
    config = bootstrap_pb2.Bootstrap()
    everywhere = socket_address("0.0.0.0", _PORT)  # noqa: S104 - a pod serves its network  # nosec B104
    listens = config.static_resources.listeners.add(name="static", address=everywhere)
    listens.filter_chains.add().filters.add(name="http", typed_config=packed(manager))
    config.static_resources.clusters.extend(made)
    return config
