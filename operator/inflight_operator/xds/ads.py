"""The aggregated discovery service: a delta stream per router, between gRPC and `session`.

Reads, waits and writes; decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from typing import Protocol, TypeAlias

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from .listener import used_by
from .load import Load
from .session import Session
from .weights import taken_by

log = logging.getLogger(__name__)

Request: TypeAlias = discovery_pb2.DeltaDiscoveryRequest


class Stream:
    """One router's connection: its session, and what wakes the one who writes to it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.over = False
        self._event = asyncio.Event()

    def wake(self) -> None:
        self._event.set()

    def end(self) -> None:
        """Nothing more is written; the router connects again."""
        self.over = True
        self._event.set()

    async def woken(self) -> None:
        await self._event.wait()
        self._event.clear()


class Plane(Protocol):
    """What the streams need of the control plane."""

    opened: asyncio.Event
    load: Load

    def connected(self, node: str, envoy: str, listeners: Collection[str], *, weighs: bool) -> Stream: ...
    def received(self, stream: Stream, request: Request) -> None: ...
    def disconnected(self, stream: Stream) -> None: ...


class AggregatedDiscovery:
    """Serves DeltaAggregatedResources; responses are bytes already."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def handler(self) -> grpc.GenericRpcHandler:
        stream: grpc.RpcMethodHandler[Request, bytes] = grpc.stream_stream_rpc_method_handler(
            self.delta, request_deserializer=Request.FromString, response_serializer=None
        )
        return grpc.method_handlers_generic_handler(
            "envoy.service.discovery.v3.AggregatedDiscoveryService", {"DeltaAggregatedResources": stream}
        )

    async def delta(
        self, requests: AsyncIterator[Request], _context: grpc.aio.ServicerContext[Request, bytes]
    ) -> AsyncIterator[bytes]:
        """Says nothing before the plane is open: a router keeps what it has."""
        first = await anext(aiter(requests), None)
        if first is None:
            return
        await self._plane.opened.wait()
        said = first.node.metadata
        stream = self._plane.connected(first.node.id, _build_of(first), used_by(said), weighs=taken_by(said))
        log.info("router %s is connected", first.node.id)
        reader = asyncio.create_task(self._read(stream, first, requests))
        try:
            while not stream.over:
                for message in stream.session.responses():
                    yield message
                await stream.woken()
        finally:
            reader.cancel()
            self._plane.disconnected(stream)
            log.info("router %s is disconnected", first.node.id)

    async def _read(self, stream: Stream, first: Request, requests: AsyncIterator[Request]) -> None:
        try:
            self._plane.received(stream, first)
            async for request in requests:
                self._plane.received(stream, request)
        finally:
            stream.end()


def _build_of(request: Request) -> str:
    """The router's Envoy version, such as 1.40.0."""
    version = request.node.user_agent_build_version.version
    return f"{version.major_number}.{version.minor_number}.{version.patch}"
