"""One process at a time: a lock that goes with its holder, however that ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inflight_cluster.errors import ClusterError


@contextmanager
def exclusive(file: Path, busy: str = "") -> Iterator[None]:
    """Hold the lock on `file`; wait for it, or raise ClusterError(`busy`) at once when a text is given."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise ClusterError(busy) from None
        yield
