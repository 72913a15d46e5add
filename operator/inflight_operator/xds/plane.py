"""The control plane: what the operator's core says to the routers, and what it hears from them.

All of it runs in one asyncio loop. `set` and `remove` only change memory and wake the streams: what changes
within one turn of the loop goes out together. Knows no Kubernetes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial

from envoy.service.discovery.v3 import discovery_pb2

from . import build, check, clusters, zones
from .ads import Stream
from .build import Key, Pieces
from .lastgood import Good
from .listener import Ports, listeners
from .load import Load
from .model import Endpoint, Programmed, RouteSpec
from .server import Server, serve
from .session import Session
from .weights import LAYER
from .wire import RUNTIME
from .world import Change, Verdicts, World

__all__ = ["ControlPlane", "Ports", "Server", "serve"]


class ControlPlane:
    """Programs all routers with all ModelDeployments' routes, and sums up their load.

    `on_programmed` is called with a key when the routers have all accepted, or one has refused, what was last
    said about it; also for a key that `programmed` was asked about too early. `pieces` makes resources of a
    RouteSpec (tests put bad ones in its place).
    """

    def __init__(
        self,
        on_programmed: Callable[[Key], None] = lambda _key: None,
        clock: Callable[[], float] = time.monotonic,
        *,
        cluster_domain: str = "cluster.local",
        ports: Ports | None = None,
        pieces: Callable[[RouteSpec], Pieces] | None = None,
    ) -> None:
        self.opened = asyncio.Event()
        self.load = Load(clock, lambda: self.routers)
        self._on_programmed = on_programmed
        self._pieces = pieces or partial(build.pieces, cluster_domain=cluster_domain)
        self._world = World(listeners(ports or Ports()))
        self._verdicts: dict[tuple[str, bool], Verdicts] = {}
        self._streams: dict[str, Stream] = {}
        self._specs: dict[Key, RouteSpec] = {}
        self._invalid: dict[Key, str] = {}
        self._waiting: set[Key] = set()
        self._serve: frozenset[str] = frozenset()
        self._agreed: dict[Key, frozenset[str]] = {}
        """Routers that have acknowledged what is wanted of a key: one that loses its connection goes on with it."""

    @property
    def routers(self) -> frozenset[str]:
        """Node ids of the connected routers."""
        return frozenset(self._streams)

    def open(self) -> None:
        """The first full list has been `set`: from now on routers are answered."""
        self.opened.set()

    def set(self, key: Key, spec: RouteSpec) -> None:
        """Wish for this ModelDeployment's traffic. What can't be programmed leaves the last routes in force."""
        if key != (spec.namespace, spec.name):
            raise ValueError(f"the RouteSpec of {spec.namespace}/{spec.name} was given as that of {key}")
        if self._specs.get(key) == spec:
            return
        self._waiting.add(key)
        self._agreed.pop(key, None)
        names = [clusters.cluster_name(spec.namespace, backend.name) for backend in spec.backends]
        if words := check.problem(spec) or self._world.conflict(key, names):
            self._invalid[key] = words
            self._specs.pop(key, None)
            return
        before, pieces = self._world.pieces(key), self._pieces(spec)
        self._changed(self._world.set(key, pieces, self._serving(key)))
        self._forget_resources(before, pieces)
        self._invalid.pop(key, None)
        self._specs[key] = spec

    def serve_from(self, routers: Mapping[str, Endpoint]) -> None:
        """The routers that serve, by node id, and their zones."""
        self._serve = frozenset(routers)
        self.load.expect(len(routers))
        self._announce()
        found = zones.told(routers.values(), least=1)
        self._changed(self._world.place(clusters.endpoints(clusters.ROUTERS, found)))

    def remove(self, key: Key) -> None:
        """The ModelDeployment is gone."""
        self._agreed.pop(key, None)
        self._specs.pop(key, None)
        self._invalid.pop(key, None)
        before = self._world.pieces(key)
        self._changed(self._world.remove(key, self._serving(key)))
        for verdicts in self._verdicts.values():
            verdicts.forget(key)
        self._forget_resources(before, None)
        if before is not None:
            self._waiting.add(key)

    def programmed(self, key: Key) -> Programmed:
        """How far a ModelDeployment's routes (or their removal) have got."""
        state = self._state(key)
        if not state.acknowledged and state.rejected is None:
            self._waiting.add(key)
        return state

    def good(self) -> Good | None:
        """What one of the connected routers has accepted; None while nobody has said so."""
        found = (stream.session.good() for stream in self._streams.values())
        return next(filter(None, found), None)

    # Called by the streams

    def connected(self, node: str, envoy: str, listeners: Collection[str], *, weighs: bool = True) -> Stream:
        """A router is there, and wants these listeners; an earlier stream of the same one is over. `weighs`: it takes
        weights from the runtime, as those of older charts don't."""
        if stale := self._streams.get(node):
            stale.end()
        verdicts = self._verdicts.setdefault((envoy, weighs), Verdicts())
        stream = self._streams[node] = Stream(Session(node, self._world, verdicts, listeners, weighs=weighs))
        return stream

    def received(self, stream: Stream, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        stream.session.receive(request)
        stream.wake()
        self._announce()

    def disconnected(self, stream: Stream) -> None:
        if self._streams.get(stream.session.node) is stream:
            del self._streams[stream.session.node]
        self._announce()

    def _changed(self, change: Change) -> None:
        if change:
            for stream in self._streams.values():
                stream.session.mark(change)
                stream.wake()

    def _serving(self, key: Key) -> frozenset[str]:
        """Versions of this ModelDeployment's routes that routers have, or have had before they come back."""
        passed = frozenset(v.passed[key].version for v in self._verdicts.values() if key in v.passed)
        return passed.union(*(stream.session.serving(key) for stream in self._streams.values()))

    def _forget_resources(self, before: Pieces | None, now: Pieces | None) -> None:
        gone = (before.clusters.keys() if before else set()) - (now.clusters.keys() if now else set())
        for verdicts in self._verdicts.values():
            verdicts.forget_clusters(gone)

    def _state(self, key: Key) -> Programmed:
        sessions = [stream.session for stream in self._streams.values()]
        objections = (session.objection(key) for session in sessions)
        rejected = self._invalid.get(key) or next(filter(None, objections), None)
        # One that serves and isn't connected may have what an earlier operator told it.
        everyone = bool(sessions) and self._serve <= self._streams.keys() | self._agreed.get(key, frozenset())
        done = everyone and rejected is None and all(session.has(key) for session in sessions)
        if done and key in self._specs:
            self._agreed[key] = self._agreed.get(key, frozenset()) & self._serve | self._streams.keys()
        return Programmed(acknowledged=done, rejected=rejected)

    def _announce(self) -> None:
        """Call back for all that has become known."""
        states = {key: self._state(key) for key in self._waiting}
        settled = [self._world.settle(key) for key, state in states.items() if state.acknowledged]
        if any(settled):
            self._changed(Change({RUNTIME: frozenset({LAYER})}))
        for key, state in states.items():
            if state.acknowledged or state.rejected is not None:
                self._waiting.discard(key)
                self._on_programmed(key)
