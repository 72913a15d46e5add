"""grpc.aio on the server's event loop, beside HTTP."""

from __future__ import annotations

import os
from typing import Final

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # its C library writes to standard error what is no JSON

import grpc
import grpc.aio

from model_server.errors import LoadFailure, Reason
from model_server.grpc_api.service import Service
from model_server.rest.infer import Inference

_KEEPALIVE_MILLISECONDS: Final = 30_000
"""After so long without a byte a client is asked whether it is still there: nobody computes for one that isn't."""


class Server:
    """A gRPC server that listens."""

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self._server = server
        self.port = port

    async def stop(self, grace: float) -> None:
        """Send GOAWAY, take no more calls, and give those that run `grace` seconds."""
        await self._server.stop(grace)


async def start(inference: Inference, host: str, port: int) -> Server:
    """Listen on `port` of `host` (empty: every address). LoadFailure(InvalidSettings) when it is taken."""
    server = grpc.aio.server(
        options=(
            ("grpc.so_reuseport", 0),  # two servers on one port would share its calls by chance
            ("grpc.max_receive_message_length", inference.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MILLISECONDS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_MILLISECONDS),
        )
    )
    server.add_generic_rpc_handlers((Service(inference).handler(),))
    address = f"[{host}]" if ":" in host else host or "[::]"
    try:
        bound = server.add_insecure_port(f"{address}:{port}")
    except RuntimeError as error:
        text = f"can't listen on port {port} of {host or 'any address'} for gRPC"
        raise LoadFailure(Reason.INVALID_SETTINGS, text) from error
    await server.start()
    return Server(server, bound)
