"""Open Inference Protocol V2 over gRPC.

Importing this costs nothing; grpcio, 8 MiB and its threads, come with `start`, where they are wanted and installed.
"""

from __future__ import annotations

import asyncio
import importlib.util
from typing import TYPE_CHECKING, Final

import structlog

from model_server.errors import LoadFailure, Reason

if TYPE_CHECKING:
    from model_server.grpc_api.server import Server
    from model_server.rest.infer import Inference

PORT: Final = 8081
_log = structlog.get_logger()


async def start(inference: Inference, host: str, port: int | None) -> Server | None:
    """A server on `port`; 0: none. None: 8081, if grpcio is installed and nobody else has it.

    LoadFailure(InvalidSettings) when it can't listen on a port that was asked for.
    """
    if port == 0:
        return None
    if importlib.util.find_spec("grpc") is None:
        if port is None:
            return None
        text = f"gRPC on port {port} needs grpcio, which isn't installed: install inflight-model-server[grpc]"
        raise LoadFailure(Reason.INVALID_SETTINGS, text)
    # On a thread: the event loop answers predictions over HTTP meanwhile.
    server = await asyncio.to_thread(importlib.import_module, "model_server.grpc_api.server")
    try:
        started: Server = await server.start(inference, host, PORT if port is None else port)
    except LoadFailure as failure:
        if port is not None:
            raise
        _log.warning("no gRPC", reason=failure.message)
        return None
    _log.info("listening for gRPC", port=started.port)
    return started
