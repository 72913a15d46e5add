"""A control plane and model routers without a network between them."""

from __future__ import annotations

from collections import deque

from inflight_operator.xds.ads import Stream
from inflight_operator.xds.build import MAIN, Key
from inflight_operator.xds.model import RouteSpec
from inflight_operator.xds.plane import ControlPlane
from model_router import ModelRouter


class Talk:
    """A control plane, and model routers whose messages are carried by hand."""

    def __init__(self, *specs: RouteSpec) -> None:
        self.announced: list[Key] = []
        self.plane = ControlPlane(self.announced.append)
        for spec in specs:
            self.plane.set((spec.namespace, spec.name), spec)
        self.plane.open()
        self.routers: dict[str, tuple[ModelRouter, Stream]] = {}

    def connect(self, node: str, router: ModelRouter | None = None) -> ModelRouter:
        router = router or ModelRouter()
        router.connect()
        self.routers[node] = (router, self.plane.connected(node, "1.40.0", {MAIN}, weighs=router.weighs))
        return router

    def responses(self, node: str) -> list[bytes]:
        """What the plane says now; it stays on the way until it is heard."""
        return list(self.routers[node][1].session.responses())

    def hear(self, node: str, response: bytes) -> None:
        """The router hears a response and the plane hears all that it says then."""
        router, stream = self.routers[node]
        router.receive(response)
        while router.outbox:
            self.plane.received(stream, router.outbox.popleft())

    def talk(self) -> int:
        """Until nobody has anything to say; how many responses it took."""
        count = 0
        moved = True
        while moved:
            moved = False
            for router, stream in self.routers.values():
                while router.outbox:
                    self.plane.received(stream, router.outbox.popleft())
                    moved = True
                responses = deque(stream.session.responses())
                while responses:
                    router.receive(responses.popleft())
                    count += 1
                    moved = True
        return count
