"""Blocking work beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def on_a_thread(work: Callable[[], T]) -> asyncio.Future[T]:
    """`work()` on a daemon thread of its own: a fetch that hangs must not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(settled: Callable[[], None]) -> None:
        if not future.done():
            settled()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            failure = error
            settled = lambda: future.set_exception(failure)  # noqa: E731
        else:
            settled = lambda: future.set_result(result)  # noqa: E731
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody awaits
            loop.call_soon_threadsafe(settle, settled)

    threading.Thread(target=run, name="startup", daemon=True).start()
    return future
