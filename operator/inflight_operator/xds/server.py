"""The gRPC server of the control plane: ADS and load reports on one port, with mutual TLS."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc

from inflight_operator import tls

from .ads import AggregatedDiscovery, Plane
from .lrs import LoadReporting

log = logging.getLogger(__name__)

OPTIONS = (
    # A router whose machine is gone holds back every acknowledgement until it is missed.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # The routers look for us in the same way.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


class Server:
    """A server that is listening; `port` is the one it got."""

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self.port = port
        self._server = server

    async def stop(self) -> None:
        """End all streams at once. The routers keep what they have and connect to whoever comes next."""
        await self._server.stop(grace=None)


async def serve(plane: Plane, port: int, tls_dir: Path | None, host: str = "[::]") -> Server:
    """Listen, with the files in `tls_dir` (tls.py); None: in plain text, which only tests want.

    OSError: the port is taken, or there are no files.
    """
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((AggregatedDiscovery(plane).handler(), LoadReporting(plane.load).handler()))
    address = f"{host}:{port}"
    try:
        secure = credentials(tls_dir) if tls_dir else None
        bound = server.add_secure_port(address, secure) if secure else server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"can't listen on {address} for routers: {error}") from error
    await server.start()
    log.info("serving routers on %s", address)
    return Server(server, bound)


def credentials(tls_dir: Path) -> grpc.ServerCredentials:
    """Mutual TLS; the files are read again for each connection, so that they can be renewed."""

    def read() -> grpc.ServerCertificateConfiguration:
        found = tls.read(tls_dir)
        pair = (found.key, found.certificate)
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=found.ca)

    return grpc.dynamic_ssl_server_credentials(read(), read, require_client_authentication=True)
