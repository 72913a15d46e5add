"""Bytes of Envoy resources: protobuf messages serialised once, and joined without being parsed again.

Protobuf messages concatenate: the bytes of two DeltaDiscoveryResponses, or of two RouteConfigurations, one after
the other are one message with the repeated fields of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from envoy.config.core.v3 import address_pb2, config_source_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
RUNTIME = "type.googleapis.com/envoy.service.runtime.v3.Runtime"


@dataclass(frozen=True, slots=True)
class Resource:
    """One Envoy resource; `wire` is a DeltaDiscoveryResponse that holds only it, ready to be concatenated."""

    name: str
    version: str
    wire: bytes


def ads() -> config_source_pb2.ConfigSource:
    """Comes on the same stream; nothing is served before it has come (no fetch timeout)."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.V3,
        initial_fetch_timeout=Duration(),
    )


def socket_address(address: str, port: int) -> address_pb2.Address:
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=address, port_value=port))


def milliseconds(value: int) -> Duration:
    return Duration(seconds=value // 1000, nanos=value % 1000 * 1_000_000)


def packed(message: Message) -> Any:
    return Any(type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}", value=serialise(message))


def serialise(message: Message) -> bytes:
    """Deterministic, since versions are digests: maps are written in the order of their keys."""
    return message.SerializeToString(deterministic=True)


def digest(*parts: bytes) -> str:
    """The version of what these bytes say."""
    state = blake2b(digest_size=8)
    for part in parts:
        state.update(len(part).to_bytes(4, "big"))
        state.update(part)
    return state.hexdigest()


def resource(type_url: str, name: str, message: Message) -> Resource:
    body = serialise(message)
    return wrapped(type_url, name, digest(body), [body])


def response(type_url: str, nonce: str, resources: Iterable[Resource], removed: Iterable[str] = ()) -> bytes:
    """A DeltaDiscoveryResponse on the wire, from resources that are serialised already."""
    head = discovery_pb2.DeltaDiscoveryResponse(type_url=type_url, nonce=nonce, removed_resources=removed)
    return b"".join((serialise(head), *(r.wire for r in resources)))


def wrapped(type_url: str, name: str, version: str, body: Sequence[bytes]) -> Resource:
    """A resource from the parts of its serialised message, which are copied once."""
    size = sum(map(len, body))
    value = field(1, type_url.encode()) + head(2, size)  # google.protobuf.Any
    message = field(3, name.encode()) + field(1, version.encode()) + head(2, len(value) + size)  # Resource
    outer = head(2, len(message) + len(value) + size)  # DeltaDiscoveryResponse
    return Resource(name, version, b"".join((outer, message, value, *body)))


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return head(number, len(payload)) + payload


def head(number: int, size: int) -> bytes:
    """What stands before the `size` bytes of a length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(size)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
