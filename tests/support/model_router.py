"""A model of what Envoy does with delta xDS, as far as traffic depends on it; it asserts that traffic is kept whole.

Like Envoy 1.40: a new cluster is asked endpoints for and serves when they have come; a changed cluster waits
for endpoints without asking, and its acknowledgement waits with it, until they come, are refused or are said to be
unknown (which leaves a cluster that serves as it is); nothing of a refused response is taken; the first answer about
routes, even a refused one, makes all listeners ready that wait for routes; nothing is asked for before the layer of
weights has come, where there is one, and a weight in it is in force instead of the routes' own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.runtime.v3 import rtds_pb2
from google.protobuf.message import Message

from inflight_operator.xds.build import MAIN, TRIAL
from inflight_operator.xds.weights import LAYER
from inflight_operator.xds.wire import CLUSTER, ENDPOINTS, LISTENER, ROUTES, RUNTIME

Request = discovery_pb2.DeltaDiscoveryRequest
Response = discovery_pb2.DeltaDiscoveryResponse

MESSAGES = {
    CLUSTER: cluster_pb2.Cluster,
    ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    LISTENER: listener_pb2.Listener,
    ROUTES: route_pb2.RouteConfiguration,
    RUNTIME: rtds_pb2.Runtime,
}


def clusters_of(host: route_components_pb2.VirtualHost) -> set[str]:
    """Where a virtual host leads."""
    matches = host.matcher.matcher_tree.prefix_match_map.map.values()
    routes = [route_components_pb2.Route.FromString(match.action.typed_config.value) for match in matches]
    found = set()
    for route in (*host.routes, *routes):
        found.update(cluster.name for cluster in route.route.weighted_clusters.clusters)
        found.update({route.route.cluster} - {""})
    return found


@dataclass
class ModelRouter:
    """`refuses` says why a resource is refused, or None. `weighs`: it has the layer of weights. `outbox` is what it
    says to the operator."""

    refuses: Callable[[Message], str | None] = lambda _message: None
    weighs: bool = True
    versions: dict[str, dict[str, str]] = field(default_factory=lambda: {url: {} for url in MESSAGES})
    warm: set[str] = field(default_factory=set)
    main: dict[str, route_components_pb2.VirtualHost] = field(default_factory=dict)
    runtime: dict[str, int] = field(default_factory=dict)
    outbox: deque[Request] = field(default_factory=deque)
    received: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)
    _connected: int = 0
    """How much it had received when this stream began."""
    _waiting: tuple[Request, set[str]] | None = None
    _started: set[str] = field(default_factory=set)

    def connect(self) -> None:
        """A new stream: says what it has."""
        self._connected = len(self.received)
        self.outbox.clear()
        if self._waiting:  # clusters that were changed and never became warm stay as they were
            self._waiting = None
        started, self._started = self._started, set()
        if self.weighs:
            self._start(RUNTIME, [LAYER])
        if CLUSTER in started or not self.weighs:
            self._start(CLUSTER, [])
        if ENDPOINTS in started:
            self._start(ENDPOINTS, sorted(self.versions[CLUSTER]))
        if LISTENER in started:
            self._start(LISTENER, [])
        if ROUTES in started:
            self._start(ROUTES, [TRIAL, *self.versions[LISTENER]])

    def _start(self, type_url: str, names: list[str]) -> None:
        self._started.add(type_url)
        self.outbox.append(
            Request(
                type_url=type_url,
                resource_names_subscribe=names,
                initial_resource_versions=self.versions[type_url],
            )
        )

    def receive(self, wire: bytes) -> None:
        response = Response.FromString(wire)
        names = tuple(sorted(r.name for r in response.resources))
        self.received.append((response.type_url, names, tuple(response.removed_resources)))
        answer = Request(type_url=response.type_url, response_nonce=response.nonce)
        messages = {r.name: MESSAGES[response.type_url].FromString(r.resource.value) for r in response.resources}
        words = [words for message in messages.values() if (words := self.refuses(message))]
        if words:
            # An operator that died between the two leaves one to the next that can't help it: it knows nothing yet.
            if response.type_url == ROUTES and any(url == LISTENER for url, *_ in self.received[self._connected :]):
                assert MAIN in self.versions[ROUTES], "it listens now, without routes"
            answer.error_detail.message = words[0]
            self.outbox.append(answer)
            self._go_on()
            if response.type_url == ENDPOINTS:  # a changed cluster doesn't wait any longer: it has none
                self._stop_waiting(names)
            return
        versions = {r.name: r.version for r in response.resources}
        if response.type_url == CLUSTER:
            self._take_clusters(versions, list(response.removed_resources), answer)
        elif response.type_url == ENDPOINTS:
            self._take_endpoints(versions, list(response.removed_resources), answer)
        elif response.type_url == RUNTIME:
            self._take_weights(versions, messages[LAYER], answer)
        else:
            self.versions[response.type_url].update(versions)
            if MAIN in messages and response.type_url == ROUTES:
                self._take_routes(messages[MAIN])
            self.outbox.append(answer)
            if response.type_url == LISTENER and messages:
                self.outbox.append(Request(type_url=ROUTES, resource_names_subscribe=list(messages)))

    def weights(self, host: str) -> dict[str, int]:
        """The weights in force of a virtual host's split by HTTP; {} if it has none."""
        if not self.main[host].routes:
            return {}
        split = self.main[host].routes[-1].route.weighted_clusters
        return {
            c.name: self.runtime.get(f"{split.runtime_key_prefix}.{c.name}", c.weight.value) for c in split.clusters
        }

    def _take_weights(self, versions: dict[str, str], layer: rtds_pb2.Runtime, answer: Request) -> None:
        self.versions[RUNTIME].update(versions)
        self.runtime = {name: int(value.number_value) for name, value in layer.layer.fields.items()}
        self.outbox.append(answer)
        if CLUSTER not in self._started:
            self._start(CLUSTER, [])

    def _take_clusters(self, versions: dict[str, str], removed: list[str], answer: Request) -> None:
        known = self.versions[CLUSTER]
        used = {name for host in self.main.values() for name in clusters_of(host)}
        assert not used & set(removed), f"routes lead to {used & set(removed)}, which are taken away"
        changed = {name for name, version in versions.items() if name in known and known[name] != version}
        new = [name for name in versions if name not in known]
        known.update(versions)
        for name in removed:
            known.pop(name, None)
            self.versions[ENDPOINTS].pop(name, None)
            self.warm.discard(name)
        if new and ENDPOINTS not in self._started:
            self._start(ENDPOINTS, new)
        elif new or removed:
            self.outbox.append(
                Request(type_url=ENDPOINTS, resource_names_subscribe=new, resource_names_unsubscribe=removed)
            )
        if changed:
            assert self._waiting is None
            self._waiting = (answer, changed)
        else:
            self.outbox.append(answer)
        self._go_on()

    def _go_on(self) -> None:
        """The first answer about clusters, even a refused one, lets the start go on to listeners."""
        if LISTENER not in self._started:
            self._start(LISTENER, [])
            self._start(ROUTES, [TRIAL])

    def _take_endpoints(self, versions: dict[str, str], unknown: list[str], answer: Request) -> None:
        self.versions[ENDPOINTS].update(versions)
        self.warm.update(name for name in versions if name in self.versions[CLUSTER])
        self.outbox.append(answer)
        self._stop_waiting((*versions, *unknown))

    def _stop_waiting(self, answered: Iterable[str]) -> None:
        if self._waiting:
            held, names = self._waiting
            names.difference_update(answered)
            if not names:
                self._waiting = None
                self.outbox.append(held)

    def _take_routes(self, configuration: route_pb2.RouteConfiguration) -> None:
        domains = [domain for host in configuration.virtual_hosts for domain in host.domains]
        assert len(domains) == len(set(domains))
        used = {name for host in configuration.virtual_hosts for name in clusters_of(host)}
        assert used <= self.warm, f"routes lead to {used - self.warm}, which can't serve yet"
        self.main = {host.name: host for host in configuration.virtual_hosts}
