"""One router's conversation: what it has asked for, has been sent, has accepted and has refused.

Pure: messages in, bytes out; `ads` does the waiting and sending. The order that keeps traffic whole:

    clusters and their endpoints first; routes only to clusters whose endpoints the router has accepted;
    a cluster is taken away only when no accepted route leads to it any more;
    weights before their routes and after the endpoints that they are for; to a router that serves what an earlier
    operator told it right after the first routes, which bring theirs;
    the listener only when its routes are decided (see `routebook`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from itertools import count
from typing import TypeAlias

from envoy.service.discovery.v3 import discovery_pb2

from .build import Key, Pieces, Routes
from .lastgood import Good
from .routebook import RouteBook
from .subscription import Subscription
from .weights import LAYER
from .wire import CLUSTER, ENDPOINTS, LISTENER, ROUTES, RUNTIME, Resource, response
from .world import Change, Told, Verdicts, World

log = logging.getLogger(__name__)

Layer: TypeAlias = Mapping[Key, Mapping[str, Told]]
"""Weights, by ModelDeployment and version of its routes."""


class Session:
    """The state of one router's ADS stream."""

    def __init__(
        self, node: str, world: World, verdicts: Verdicts, listeners: Collection[str], *, weighs: bool
    ) -> None:
        """`listeners` are those that the router wants, `weighs`: it takes weights from the runtime."""
        self.node = node
        self._world = world
        ours = {name: resource for name, resource in world.resources[LISTENER].items() if name in listeners}
        self._wanted: Mapping[str, Mapping[str, Resource]] = {**world.resources, LISTENER: ours}
        self._verdicts = verdicts
        self._subscriptions = {
            CLUSTER: Subscription(wildcard=True, removes=True),
            ENDPOINTS: Subscription(wildcard=False, removes=False),
            LISTENER: Subscription(wildcard=True, removes=True),
            RUNTIME: Subscription(wildcard=False, removes=False),
        }
        self._routes = world.routes if weighs else world.whole
        self._takes_layer = weighs
        self._layer_sent: Layer = {}
        self._layer_accepted: Layer = {}
        self._nonces: dict[str, str] = {}
        self._next_nonce = count(1)
        self._book = RouteBook(world, self._routes, verdicts)

    def mark(self, change: Change) -> None:
        """The wish has changed."""
        for type_url, names in change.names.items():
            self._subscriptions[type_url].mark(names)
        self._book.mark(change.routes)

    def receive(self, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        """A request is an answer to a response (by its nonce), a change of subscription, or both."""
        if request.response_nonce:
            self._answered(request)
        if request.type_url == ROUTES:
            self._book.ask(request)
        elif subscription := self._subscriptions.get(request.type_url):
            wanted = self._wanted[request.type_url]
            subscription.ask(request, wanted)
            if request.initial_resource_versions.get(LAYER) == self._world.layer().version:
                self._layer_sent = self._layer_accepted = dict(self._world.weights)
            for name, version in request.initial_resource_versions.items():
                if name in wanted and wanted[name].version == version:
                    self._verdicts.accepted[request.type_url, name] = wanted[name]

    def responses(self) -> Iterator[bytes]:
        """What can be sent now, in order."""
        yield from self._resources(CLUSTER)
        yield from self._resources(ENDPOINTS)
        yield from self._weights()
        for resource, flight in self._book.next(self._ready, self._hopeless):
            nonce = self._nonce(ROUTES)
            self._book.sent(nonce, flight)
            yield response(ROUTES, nonce, [resource])
        yield from self._weights()
        if self._book.decided:
            yield from self._resources(LISTENER)

    def _weights(self) -> Iterator[bytes]:
        unknown = not self._book.told and self._subscriptions[RUNTIME].accepted
        if unknown or self._subscriptions[ENDPOINTS].behind:
            return
        refused = self._verdicts.refuses(RUNTIME, self._world.layer())  # then it gets the last ones again
        for message in self._resources(RUNTIME):
            self._layer_sent = self._layer_accepted if refused else dict(self._world.weights)
            yield message

    def _resources(self, type_url: str) -> Iterator[bytes]:
        subscription = self._subscriptions[type_url]
        batch = subscription.next(
            self._wanted[type_url],
            partial(self._verdicts.usable, type_url),
            self._needed_clusters if type_url == CLUSTER else list,
        )
        if batch is None:
            return
        if type_url == CLUSTER:
            # Envoy warms a changed cluster anew: it waits for endpoints, but doesn't ask, since it has them.
            self._subscriptions[ENDPOINTS].resend([resource.name for resource in batch.resources])
        yield response(type_url, self._nonce(type_url), batch.resources, batch.removed)

    def has(self, key: Key) -> bool:
        """Whether the router has accepted all that is wanted for this ModelDeployment (or its absence)."""
        routes = self._book.accepted
        pieces = self._world.pieces(key)
        if routes is None or pieces is None:
            return routes is not None and key not in routes
        mine = routes.get(key)
        return (
            mine is not None
            and mine.version == self._routes[key].version
            and self._has_weights(key, pieces)
            and self._has_all(CLUSTER, pieces.clusters.values())
            and self._has_all(ENDPOINTS, pieces.endpoints.values())
        )

    def good(self) -> Good | None:
        """What the router has accepted; None while that isn't known."""
        if self._book.accepted is None:
            return None
        wanted = self._world.resources[CLUSTER].values()
        usable = {r.name: found for r in wanted if (found := self._verdicts.usable(CLUSTER, r))}
        routes = {key: self._with_weights(key, mine) for key, mine in self._book.accepted.items()}
        return Good(routes, usable, tuple(self._wanted[LISTENER].values()))

    def _with_weights(self, key: Key, mine: Routes) -> Routes:
        """The same routes with the weights of now."""
        told = self._world.weights.get(key, {}).get(mine.version)
        return told.whole if told and self._takes_layer else mine

    def serving(self, key: Key) -> set[str]:
        """Versions of this ModelDeployment's routes that the router may have, now or soon."""
        return self._book.serving(key)

    def objection(self, key: Key) -> str | None:
        """The router's words if it refused something of this ModelDeployment as it is wanted now."""
        pieces = self._world.pieces(key)
        if pieces is None:
            return None
        if (RUNTIME, LAYER) in self._verdicts.refused and self._refuses_weights(key, pieces):
            return f"the router refuses the weights: {self._verdicts.refused[RUNTIME, LAYER][1]}"
        return self._verdicts.objection(key, self._routes[key], pieces)

    def _refuses_weights(self, key: Key, pieces: Pieces) -> bool:
        return self._verdicts.refuses(RUNTIME, self._world.layer()) and not self._has_weights(key, pieces)

    def _has_weights(self, key: Key, pieces: Pieces) -> bool:
        """And no others are on their way."""
        books = (self._layer_accepted, self._layer_sent)
        return all(_weights_in(book, key, pieces.routes) == pieces.weights for book in books) or not self._takes_layer

    def _has_all(self, type_url: str, resources: Collection[Resource]) -> bool:
        accepted = self._subscriptions[type_url].accepted
        return all(accepted.get(r.name) == r.version for r in resources)

    def _answered(self, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        type_url = self._nonces.pop(request.response_nonce, None)
        if type_url is None or type_url != request.type_url:
            return  # of an earlier stream, or made up
        refused = request.HasField("error_detail")
        if refused:
            log.warning("router %s refused %s: %s", self.node, type_url, request.error_detail.message)
        if type_url != ROUTES:
            self._answered_resources(type_url, request.error_detail.message if refused else None)
        elif refused:
            self._book.refuse(request.response_nonce, request.error_detail.message)
        else:
            self._book.accept(request.response_nonce)

    def _answered_resources(self, type_url: str, words: str | None) -> None:
        subscription = self._subscriptions[type_url]
        if words is not None:
            if type_url == RUNTIME:
                self._layer_sent = self._layer_accepted
            if culprit := subscription.refuse():
                self._verdicts.refused[type_url, culprit.name] = (culprit.version, words)
            return
        if type_url == RUNTIME:
            self._layer_accepted = self._layer_sent
        for resource in subscription.accept().resources:
            if resource.name in self._world.resources[type_url]:
                self._verdicts.accepted[type_url, resource.name] = resource

    def _needed_clusters(self) -> Collection[str]:
        referred = self._book.referred()
        return self._subscriptions[CLUSTER].accepted if referred is None else referred

    def _ready(self, key: Key, routes: Routes) -> bool:
        known, warm = self._subscriptions[CLUSTER], self._subscriptions[ENDPOINTS]
        if not all(known.has(name) and warm.has(name) for name in routes.clusters):
            return False
        return self._weights_are_there(key, routes)

    def _weights_are_there(self, key: Key, routes: Routes) -> bool:
        if not self._takes_layer or self._book.accepted is None:
            return True
        return _weights_in(self._layer_sent, key, routes) == _weights_in(self._world.weights, key, routes)

    def _hopeless(self, key: Key) -> bool:
        return self.objection(key) is not None

    def _nonce(self, type_url: str) -> str:
        nonce = str(next(self._next_nonce))
        self._nonces[nonce] = type_url
        return nonce


def _weights_in(layer: Layer, key: Key, routes: Routes) -> bytes:
    told = layer.get(key, {}).get(routes.version)
    return told.piece if told else b""
