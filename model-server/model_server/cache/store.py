"""Answers in memory: the least recently used go when there are too many bytes, and none is older than its time.

`now` is any clock that never goes back; the store has none of its own.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np

from model_server.instruments import Counter
from model_server.models.tensors import Array, Tensors, datatype_of

_ENTRY_BYTES: Final = 700
"""What an entry takes besides its tensors: key, dictionaries, objects."""
_TENSOR_BYTES: Final = 250


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that belongs to the cache alone."""

    outputs: Tensors
    """Read-only arrays."""
    size: int
    """Bytes of memory, with all that belongs to it."""


@dataclass(frozen=True, slots=True)
class _Entry:
    kept: Kept
    since: float
    until: float


class Store:
    """At most `max_bytes` of answers."""

    def __init__(self, max_bytes: int, evictions: Counter) -> None:
        self._max_bytes = max_bytes
        self._evictions = evictions
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        """The least recently used first."""
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, now: float, max_age: float) -> Tensors | None:
        """The answer, if there is one that is at most `max_age` seconds old."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= now:
            self._drop(key)
            return None
        if now - entry.since > max_age:
            return None
        self._entries.move_to_end(key)
        return entry.kept.outputs

    def put(self, key: bytes, kept: Kept, since: float, until: float, now: float) -> None:
        """Keep an answer that was computed at `since`, in place of what was kept; one larger than all memory is not."""
        if key in self._entries:
            self._drop(key)
        if kept.size > self._max_bytes or until <= now:
            return
        self._entries[key] = _Entry(kept, since, until)
        self.bytes += kept.size
        while self.bytes > self._max_bytes:
            self._evict(now)

    def _evict(self, now: float) -> None:
        oldest = next(iter(self._entries))
        if self._entries[oldest].until > now:
            self._evictions.inc()
        self._drop(oldest)

    def _drop(self, key: bytes) -> None:
        self.bytes -= self._entries.pop(key).kept.size


def own(outputs: Tensors) -> Kept | None:
    """A copy that nobody else can change and that holds on to nothing else; None for what no answer can carry.

    Models return views of whole batches, of their inputs, of memory that workers use again, or arrays of their own.
    """
    copies: dict[str, Array] = {}
    size = _ENTRY_BYTES
    for name, array in outputs.items():
        if datatype_of(array) is None:
            return None
        copy = np.array(array, order="C")
        if copy.dtype.hasobject:
            items = copy.ravel().tolist()
            if not all(type(item) in (bytes, str) for item in items):
                return None
            size += sum(map(sys.getsizeof, items))
        copy.flags.writeable = False
        copies[name] = copy
        size += copy.nbytes + _TENSOR_BYTES + len(name)
    return Kept(copies, size)
