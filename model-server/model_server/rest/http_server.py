"""uvicorn, as this server runs it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn

from model_server.rest.connection import Connection
from model_server.rest.front import Front

KEEP_ALIVE_SECONDS: Final = 75
"""How long an idle connection stays open: longer than routers keep theirs, so that it is they who close."""
BACKLOG: Final = 2048


class Server(uvicorn.Server):
    """A uvicorn that leaves the signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing."""
        yield

    @property
    def connections(self) -> int:
        """Open ones."""
        return len(self.server_state.connections)

    def give_idle(self) -> None:
        """Give away, by the front's `giving`, all connections on which no request is under way."""
        for connection in list(self.server_state.connections):
            connection.give_if_idle()  # type: ignore[union-attr]

    async def adopt(self, sock: socket.socket) -> None:
        """Serve a connection that another process accepted."""

        def connection() -> Connection:
            made = Connection(self.config, self.server_state, {})
            made.adopted = True
            return made

        sock.setblocking(False)
        _, adopted = await asyncio.get_running_loop().connect_accepted_socket(connection, sock)
        if self.should_exit:  # too late for the round of all connections
            adopted.shutdown()


def make(front: Front, timeout: float) -> Server:
    """A server of `front`, whose requests take `timeout` seconds at most."""
    return Server(
        uvicorn.Config(
            front,
            loop="none",
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            # Admitted work has its own deadline; a second more, and whoever still reads slowly is left.
            timeout_graceful_shutdown=int(timeout) + 1,
        )
    )
