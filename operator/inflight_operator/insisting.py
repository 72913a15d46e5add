"""Asking again until the cluster answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from inflight_operator.errors import TransientError

_log: Final = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 1.0
T = TypeVar("T")


async def insist(call: Callable[[], Awaitable[T]], problem: str) -> T:
    """The result of `call`, tried every second while it raises TransientError; `problem` is what the log says then."""
    while True:
        try:
            return await call()
        except TransientError as error:
            _log.warning(problem, error=str(error))
            await asyncio.sleep(RETRY_SECONDS)
