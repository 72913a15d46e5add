"""Who fetches which piece next, and how far each file has come. It reads no clock and knows no network.

A piece belongs to one worker at a time. What a worker writes after its piece was given to another one is refused, so
that nothing that has been hashed can change.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from model_server.storage.journal import Journal, cuts
from model_server.storage.remote import Remote

_SLOW_SECONDS: Final = 2.0
_SLOW_TIMES: Final = 4.0
"""A piece is slow when it takes this many times what pieces take on average, and _SLOW_SECONDS at least."""
_MAX_OWNERS: Final = 4
"""A piece is taken over at most this often, less one: perhaps it is the source that is slow, not the connection."""

Worker = int


class AbandonedError(Exception):
    """The piece is another worker's now."""


@dataclass
class Wanted:
    """One file to fetch and where it goes."""

    remote: Remote
    path: Path


@dataclass(eq=False)
class Piece:
    """A part of a file: bytes up to `position` are on disk, `stop` is where it ends (None: where the file ends)."""

    wanted: Wanted
    position: int
    stop: int | None
    owner: Worker | None = None
    owners: int = 0
    since: float = 0.0
    """When the owner took it."""
    done: bool = False
    note: Callable[[int], None] = lambda _position: None
    """Told each new position, after the bytes are written."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while the owner writes, so that a taken piece is written by its new owner only."""

    def write(self, worker: Worker, file: int, data: memoryview) -> None:
        """Append `data` at the position, in the open `file`. AbandonedError if it is another's; OSError."""
        with self.lock:
            _require(self, worker)
            while data:
                written = os.pwrite(file, data, self.position)
                self.position += written
                self.note(self.position)
                data = data[written:]


class Plan:
    """The pieces of all files, in the order in which they are hashed. Safe to use from several threads."""

    def __init__(self, files: Sequence[Wanted], journal: Journal | None = None) -> None:
        """All of them, or what a `journal` says is missing."""
        self.files = files
        self.by_file = [list(_pieces(wanted)) for wanted in files]
        if journal is not None:
            self._follow(journal)
        self._waiting = [piece for pieces in reversed(self.by_file) for piece in reversed(pieces) if not piece.done]
        self._running: list[Piece] = []
        self._lock = threading.Lock()
        self._finished, self._finished_seconds = 0, 0.0

    def _follow(self, journal: Journal) -> None:
        pieces = [piece for pieces in self.by_file for piece in pieces]
        for number, (piece, position) in enumerate(zip(pieces, journal.positions, strict=True)):
            piece.position, piece.done = position, position == piece.stop
            piece.note = functools.partial(journal.note, number)

    @property
    def count(self) -> int:
        """Pieces that are missing."""
        return len(self._waiting) + len(self._running)

    @property
    def missing(self) -> int:
        """Bytes that are missing, of files whose size is known."""
        return sum((piece.stop or piece.position) - piece.position for pieces in self.by_file for piece in pieces)

    def take(self, worker: Worker, now: float) -> Piece | None:
        """The next piece for an idle worker: one that waits, else one whose owner is slow, else none for now."""
        with self._lock:
            piece = self._waiting.pop() if self._waiting else self._slowest(now)
            if piece is None:
                return None
            if piece not in self._running:
                self._running.append(piece)
            with piece.lock:
                piece.owner, piece.since = worker, now
                piece.owners += 1
            return piece

    def finish(self, piece: Piece, worker: Worker, now: float) -> None:
        """`worker` has written all of `piece`. AbandonedError if it is another's."""
        with self._lock, piece.lock:
            _require(piece, worker)
            piece.done = True
            piece.stop = piece.position
            self._running.remove(piece)
            self._finished += 1
            self._finished_seconds += now - piece.since

    def give_back(self, piece: Piece, worker: Worker) -> None:
        """`worker` can't get on with `piece`; somebody else may."""
        with self._lock, piece.lock:
            _require(piece, worker)
            piece.owner = None
            self._running.remove(piece)
            self._waiting.append(piece)

    @property
    def over(self) -> bool:
        """Whether every piece is done."""
        with self._lock:
            return not self._waiting and not self._running

    def _slowest(self, now: float) -> Piece | None:
        if not self._finished:
            return None
        patience = max(_SLOW_SECONDS, _SLOW_TIMES * self._finished_seconds / self._finished)
        slow = [
            piece
            for piece in self._running
            if now - piece.since > patience and piece.owners < _MAX_OWNERS and piece.wanted.remote.ranges
        ]
        return min(slow, key=lambda piece: piece.since, default=None)


def _pieces(wanted: Wanted) -> Iterator[Piece]:
    size = wanted.remote.size
    if not wanted.remote.ranges or size is None:
        yield Piece(wanted, 0, None)
        return
    for start, stop in cuts(size):
        yield Piece(wanted, start, stop)


def _require(piece: Piece, worker: Worker) -> None:
    if piece.owner != worker:
        raise AbandonedError
