"""GET /v2/health/live and /v2/health/ready: what a probe asks, many times a minute."""

from __future__ import annotations

from typing import Final

from model_server.errors import Code, Problem
from model_server.lifecycle import Lifecycle

LIVE: Final = "/v2/health/live"
READY: Final = "/v2/health/ready"


def require_ready(lifecycle: Lifecycle) -> None:
    """Problem(not_ready) unless new traffic should be sent here."""
    if lifecycle.draining:
        raise Problem(Code.NOT_READY, "this server is stopping", retry_after_ms=1000)
    if not lifecycle.ready:
        raise Problem(Code.NOT_READY, "the model is still being fetched and loaded", retry_after_ms=1000)


def require_live(lifecycle: Lifecycle) -> None:
    """Problem(not_ready) when only a new process would help: whoever watches from outside should start one."""
    if lifecycle.served is not None and lifecycle.served.hangs():
        text = "every slot has been computing for far longer than any request may: this process has to be replaced"
        raise Problem(Code.NOT_READY, text)


def answer(path: str, lifecycle: Lifecycle) -> bytes | None:
    """The body of the 200; None where `path` is neither. Problem(not_ready) for the 503."""
    if path == LIVE:
        require_live(lifecycle)
        return b'{"live":true}'
    if path == READY:
        require_ready(lifecycle)
        return b'{"ready":true}'
    return None
