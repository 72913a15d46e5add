"""Ports for servers that start later: below those that the kernel gives to outgoing connections, one of which would
otherwise take a port between its choice and its use.
"""

from __future__ import annotations

import random
import socket

_FIRST, _LAST = 10_000, 32_000


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    while True:
        port = random.randint(_FIRST, _LAST)  # noqa: S311 - no secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
