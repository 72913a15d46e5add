"""Files fetched in pieces over several connections at once, and hashed in order while they come in.

Pieces are written where they belong in the file as they arrive; the caller's thread follows, a piece behind, and
hashes them where they lie in the page cache. So memory stays at a few buffers, however large the model is. Who fetches
waits for who hashes when that falls behind: the digest is there soon after the last byte, and what is hashed has not
left the page cache, also where memory is short.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from model_server.errors import LoadFailure, Reason
from model_server.storage.attempts import PAUSES, InterruptedFetch, TransientError
from model_server.storage.files import DiskFailure, writing
from model_server.storage.pieces import AbandonedError, Piece, Plan, Wanted
from model_server.storage.remote import PIECE_BYTES, ChangedError

_log = structlog.get_logger()

_WINDOW_BYTES: Final = PIECE_BYTES
"""Hashed at once, and mapped for it: copying them into a buffer took two thirds as long as hashing them."""
_LEAD_BYTES: Final = 8 * PIECE_BYTES
"""No piece is begun while this much more has been fetched than hashed. Without a bound, on two cores, the fetching
threads left the hashing one no time: when they had ended, it went on alone for almost as long again."""
_MAPPED: Final = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
_NICE: Final = 10
"""How much the fetching threads stand back behind the hashing one, for the same reason."""
_LOOK_SECONDS: Final = 0.1
_PROGRESS_SECONDS: Final = 5.0
_JOIN_SECONDS: Final = 1.0
_PROGRESS_BYTES: Final = 1024 * 1024
"""A connection that brought this much before it was cut counts as progress: the attempts are counted anew."""


@dataclass
class Budget:
    """What a fetch may use, all its files and attempts together."""

    max_bytes: int
    seconds: float
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds that remain."""
        return self.started + self.seconds - time.monotonic()

    def check(self, count: int) -> None:
        """LoadFailure(FetchFailed) when a model of `count` bytes is too large, or it is too late."""
        if count > self.max_bytes:
            raise LoadFailure(Reason.FETCH_FAILED, f"the model is larger than {self.max_bytes} bytes")
        if self.left() <= 0:
            raise LoadFailure(Reason.FETCH_FAILED, f"the model did not arrive within {self.seconds:.0f} s")


class Transfer:
    """One attempt to fetch the files of a plan."""

    def __init__(
        self,
        plan: Plan,
        budget: Budget,
        connections: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._plan, self._files = plan, plan.files
        self._budget = budget
        self._sleep = sleep
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._ended = False
        self._workers = min(connections, self._plan.count)
        self._bytes = 0
        self._hashed_bytes = 0
        self._starved = False
        """Whether what is to be hashed next isn't here yet."""
        self._progress = _Progress(sum(wanted.remote.size or 0 for wanted in plan.files))

    def run(self) -> list[str]:
        """The sha256 of each file, once all are on disk. Blocks.

        TransientError: to be tried again from the beginning. LoadFailure(FetchFailed): too large, too late, disk full,
        or a source that won't serve.
        """
        self._budget.check(sum(wanted.remote.size or 0 for wanted in self._files))
        for wanted in self._files:
            with writing(wanted.path):
                wanted.path.touch()
        threads = [
            threading.Thread(target=self._work, args=(number,), name=f"fetch-{number}", daemon=True)
            for number in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        try:
            return [self._hashed(*each) for each in zip(self._files, self._plan.by_file, strict=True)]
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            for wanted in self._files:
                wanted.remote.close()
            for thread in threads:
                thread.join(_JOIN_SECONDS)

    # The caller's thread ---------------------------------------------------------------------------------------------

    def _hashed(self, wanted: Wanted, pieces: Sequence[Piece]) -> str:
        hashed, at = hashlib.sha256(), 0
        with wanted.path.open("rb", buffering=0) as file:
            for piece in pieces:
                while True:
                    done = piece.done  # before its position, or what comes in between would be taken for its end
                    count = min(piece.position - at, _WINDOW_BYTES)
                    if done and not count:
                        break
                    if count < _WINDOW_BYTES and not done:
                        self._wait(piece)
                        continue
                    if os.fstat(file.fileno()).st_size < at + count:
                        raise DiskFailure(f"{wanted.path.name[:200]!r} has got shorter")
                    with mmap.mmap(file.fileno(), count, _MAPPED, mmap.PROT_READ, offset=at) as window:
                        hashed.update(window)
                    at += count
                    self._follow(count)
        return hashed.hexdigest()

    def _follow(self, count: int) -> None:
        with self._changed:
            self._hashed_bytes += count
            self._changed.notify_all()

    def _wait(self, piece: Piece) -> None:
        with self._changed:
            if self._error is None and not piece.done:
                self._starved = True
                self._changed.notify_all()
                self._changed.wait(_LOOK_SECONDS)
                self._starved = False
        if self._error is not None:
            raise self._error
        self._budget.check(self._bytes)
        self._progress.tell(self._bytes)

    # The workers -----------------------------------------------------------------------------------------------------

    def _work(self, worker: int) -> None:
        try:
            if sys.platform == "linux":  # elsewhere threads have no priorities of their own
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
            while not self._ended and not self._plan.over:
                piece = None if self._ahead else self._plan.take(worker, time.monotonic())
                if piece is None:
                    with self._changed:
                        self._changed.wait(_LOOK_SECONDS)
                elif not self._fetched(piece, worker):
                    return
        except BaseException as error:
            self._fail(error)

    @property
    def _ahead(self) -> bool:
        """Whether there is enough to hash for now."""
        return self._bytes - self._hashed_bytes > _LEAD_BYTES and not self._starved

    def _fetched(self, piece: Piece, worker: int) -> bool:
        """Whether this worker should go on: not when its connections fail and others' don't."""
        try:
            self._fill(piece, worker)
            self._plan.finish(piece, worker, time.monotonic())
        except AbandonedError:
            return True
        except TransientError as error:
            if not piece.wanted.remote.ranges or isinstance(error, ChangedError):
                raise
            with self._changed:
                if self._ended:
                    return False
                self._workers -= 1
                if not self._workers:
                    raise InterruptedFetch(
                        f"fetching {piece.wanted.path.name} failed {len(PAUSES) + 1} times in a row, last: {error}",
                    ) from error
            # Perhaps the source allows fewer connections than that.
            self._plan.give_back(piece, worker)
            _log.info("fetching over fewer connections", connections=self._workers, why=str(error))
            return False
        with self._changed:
            self._changed.notify_all()
        return True

    def _fill(self, piece: Piece, worker: int) -> None:
        """Fetch what `piece` lacks, on from where a connection was cut."""
        failures = 0
        while True:
            before = piece.position
            try:
                if self._read(piece, worker):
                    return
            except TransientError as error:
                if not piece.wanted.remote.ranges or isinstance(error, ChangedError):
                    raise
                failures = 0 if piece.position - before >= _PROGRESS_BYTES else failures
                if failures == len(PAUSES) or self._ended:
                    raise
                _log.info("a connection was cut, resuming", at=piece.position, why=str(error))
                self._sleep(PAUSES[failures])
                failures += 1

    def _read(self, piece: Piece, worker: int) -> bool:
        """One answer's bytes; whether the piece is complete with them."""
        start, stop, path = piece.position, piece.stop, piece.wanted.path
        answer = contextlib.closing(piece.wanted.remote.read(start, stop))
        with writing(path), path.open("r+b", buffering=0) as file, answer as chunks:
            for chunk in chunks:
                if stop is not None and len(chunk) > stop - piece.position:
                    raise TransientError("the source sent more than it was asked for")
                piece.write(worker, file.fileno(), chunk)
                self._count(len(chunk))
        if stop is not None and piece.position == start:
            raise TransientError("the source ended its answer at once")
        return stop is None or piece.position >= stop

    def _count(self, count: int) -> None:
        with self._changed:
            self._bytes += count
        if self._bytes > self._budget.max_bytes:
            self._budget.check(self._bytes)
        if self._ended:
            raise AbandonedError

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()


class _Progress:
    """A line in the log every few seconds, for who waits for a large model."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._told = self._started = time.monotonic()

    def tell(self, count: int) -> None:
        now = time.monotonic()
        if now - self._told < _PROGRESS_SECONDS:
            return
        self._told = now
        share = {"percent": round(100 * count / self._total)} if self._total else {}
        _log.info("fetching", bytes=count, mb_per_second=round(count / (now - self._started) / 1e6, 1), **share)
