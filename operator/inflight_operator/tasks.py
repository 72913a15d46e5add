"""Tasks that must not end in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def apart(work: Coroutine[Any, Any, T]) -> T:
    """Run in a task of its own, which ends with it.

    For a TaskGroup whose failure is caught. Before Python 3.13 it leaves its task marked as being cancelled
    (`Task.cancelling()` stays 1), and before 3.11.3 an `asyncio.timeout` that runs out in a task so marked ends the
    task, instead of being a TimeoutError.
    """
    return await asyncio.create_task(work)


def go_on() -> None:
    """CancelledError where this task was cancelled before, and something took the cancellation for its own.

    For loops that catch what their work raises: `asyncio.wait_for` (before 3.12) and a TaskGroup whose child fails at
    that very moment swallow a cancellation. Not in a task that catches a TaskGroup's failure itself: see `apart`.
    """
    this = asyncio.current_task()
    if this is not None and this.cancelling():
        raise asyncio.CancelledError


async def lasting(name: str, work: Coroutine[Any, Any, None]) -> None:
    """Run what goes on until it is cancelled from outside or fails. RuntimeError: it ended, or cancelled itself.

    A TaskGroup takes a task that ends so for one that has done its work, and goes on without it.
    """
    try:
        await apart(work)
    except asyncio.CancelledError:
        this = asyncio.current_task()
        if this is None or this.cancelling():
            raise
        raise RuntimeError(f"{name} cancelled itself: this is a bug") from None
    raise RuntimeError(f"{name} ended: this is a bug")
