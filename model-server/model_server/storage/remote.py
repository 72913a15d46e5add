"""What the sources of models have in common: a file somewhere else, in one version, that can be read in pieces."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, Protocol

from model_server.storage.attempts import TransientError

PIECE_BYTES: Final = 8 * 1024**2
"""One request asks for at most this much: long enough that the requests' own time hardly counts, short enough that
several connections share even a small model, and that little is lost with a connection."""


class ChangedError(TransientError):
    """The file at the source is another one now: what came so far is of no use."""


class Remote(Protocol):
    """One file at its source; `read` may be called from several threads at once."""

    @property
    def size(self) -> int | None:
        """Bytes; None where the source doesn't say."""

    @property
    def ranges(self) -> bool:
        """Whether pieces may be asked for alone and surely belong together."""

    @property
    def version(self) -> str:
        """What the source calls this very sequence of bytes; "" where it doesn't say."""

    def read(self, start: int, stop: int | None) -> Generator[memoryview, None, None]:
        """Bytes from `start` up to `stop`, or the end; fewer when the source ends its answer early.

        A chunk is valid until the next one is asked for. TransientError: asking again may help; ChangedError;
        LoadFailure(FetchFailed): it won't. No OSError: that is the disk's.
        """

    def close(self) -> None:
        """End every read, from another thread too."""
