"""Trying again: which failures may pass, how often and how long."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from model_server.errors import LoadFailure, Reason

PAUSES: Final = (1.0, 2.0, 4.0)
"""Seconds between attempts: whoever watches the pod must learn the reason within a minute."""

T = TypeVar("T")


class TransientError(Exception):
    """A failure of the network or of the other side that may pass."""


class InterruptedFetch(LoadFailure):
    """The source failed for too long. What came until then is good, and the next process may go on from there."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.FETCH_FAILED, message)


def persist(attempt: Callable[[], T], what: str, sleep: Callable[[float], None] = time.sleep) -> T:
    """The result of `attempt`, tried again while it raises TransientError. LoadFailure(FetchFailed) when it goes on."""
    for pause in PAUSES:
        try:
            return attempt()
        except TransientError:
            sleep(pause)
    try:
        return attempt()
    except TransientError as error:
        tries = len(PAUSES) + 1
        raise InterruptedFetch(f"fetching {what} failed {tries} times, last: {error}") from error
