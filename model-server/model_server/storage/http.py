"""One file over https, or over http where a digest vouches for it; in pieces where the server allows it.

It follows at most three redirects and vets each, and sends no credentials but those that are in the URL it is given.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Generator
from typing import Final, NoReturn
from urllib.parse import urljoin

from model_server.errors import LoadFailure, Reason, first_line
from model_server.storage.attempts import TransientError
from model_server.storage.connections import Answer, Pool
from model_server.storage.remote import PIECE_BYTES, ChangedError
from model_server.storage.uri import ModelUri, parse

_MAX_REDIRECTS: Final = 3
_CHUNK: Final = 256 * 1024
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_PASSING: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
_EXPIRED: Final = frozenset((401, 403, 404, 410))
"""What a redirect's target says when the permission in its URL has run out."""
_PARTIAL, _NOT_SATISFIABLE, _FAILED_CONDITION = 206, 416, 412


class HttpFile:
    """See Remote. One GET for the first piece tells all: the size, the version, whether there are ranges."""

    def __init__(self, url: Callable[[], ModelUri], host: str, pool: Pool, *, sha256: str = "") -> None:
        """At the `url` that there is for each request; `host` is what people call its source."""
        self._url, self._host, self._pool, self._sha256 = url, host, pool, sha256
        self._redirected: ModelUri | None = None
        """Where the first request was sent on to."""
        self._etag = ""
        self.size: int | None = None
        self.ranges = False
        self._first: Answer | None = None
        self._first_at = 0

    def known(self, size: int, etag: str) -> HttpFile:
        """Instead of `begin`, where its source has said already what it is."""
        self.size, self._etag, self.ranges = size, etag, True
        return self

    @property
    def version(self) -> str:
        """See Remote. Weak tags stand for what merely looks alike."""
        return "" if self._etag.startswith("W/") else self._etag

    def begin(self, first: tuple[int, int] | None = None) -> HttpFile:
        """Send the first request, for the part [start, stop) that is wanted `first`, or the beginning.

        TransientError; LoadFailure(FetchFailed) for answers that won't change.
        """
        start, stop = first or (0, PIECE_BYTES)
        asked = self._url()
        with _Failures(self._host):
            answer = self._follow(asked, {"Range": f"bytes={start}-{stop - 1}"})
            part = answer.content_range()
            self._etag = answer.response.getheader("etag", "")
            # Without a version to ask for, parts may be of different files; a digest would tell.
            sure = bool(self.version or self._sha256)
            if part and part[0] == start and (sure or part[:2] == (0, part[2])):
                self.size, self.ranges = part[2], sure
            elif answer.status in (_PARTIAL, _NOT_SATISFIABLE):
                self._pool.drop(answer.connection)
                if start:
                    return self.begin()
                answer = self._follow(asked, {})
                if answer.status != 200:
                    self._refuse(answer)
                self.size = answer.response.length
            elif answer.status == 200:
                self.size = answer.response.length
            else:
                self._refuse(answer)
        self._redirected = answer.uri if answer.uri != asked else None
        self._first, self._first_at = answer, start if self.ranges else 0
        return self

    def read(self, start: int, stop: int | None) -> Generator[memoryview, None, None]:
        """See Remote."""
        with _Failures(self._host):
            if start == self._first_at and self._first is not None:  # one worker at a time has the piece there
                answer, self._first = self._first, None
            elif self.ranges and stop is not None:
                answer = self._part(start, stop)
            else:
                raise ChangedError(f"{self._host} can only send the whole file again")
            yield from self._body(answer)

    def close(self) -> None:
        """See Remote. Whatever else reads over the same pool ends too."""
        self._pool.close()
        if self._first is not None:
            self._pool.drop(self._first.connection)

    def _part(self, start: int, stop: int) -> Answer:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if self.version:
            headers["If-Range"] = self.version
        asked = self._url()
        answer = self._follow(self._redirected or asked, headers)
        if answer.status in _EXPIRED and self._redirected is not None:
            self._pool.drop(answer.connection)
            answer = self._follow(asked, headers)
            self._redirected = answer.uri if answer.uri != asked else None
        part = answer.content_range()
        if answer.status == 200 and (start, stop) == (0, self.size):
            part = (0, answer.response.length or 0, answer.response.length or 0)  # who wants all needs no ranges
        elif answer.status in (200, _NOT_SATISFIABLE, _FAILED_CONDITION):
            self._pool.drop(answer.connection)
            raise ChangedError(f"{self._host} has another file now than when fetching it began")
        if part is None and answer.status != _PARTIAL:
            self._refuse(answer)
        etag = answer.response.getheader("etag", self._etag)
        if part is None or part[0] != start or part[1] > stop or part[2] != self.size or etag != self._etag:
            self._pool.drop(answer.connection)
            raise ChangedError(f"{self._host} sent another part, or of another file, than it was asked for")
        return answer

    def _follow(self, uri: ModelUri, headers: dict[str, str]) -> Answer:
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self._pool.ask(uri, headers)
            location = answer.response.getheader("location")
            if answer.status not in _REDIRECTS or not location:
                if answer.response.getheader("content-encoding", "identity") != "identity":
                    self._pool.drop(answer.connection)
                    raise LoadFailure(
                        Reason.FETCH_FAILED, f"{uri.host} sent the model compressed although asked not to"
                    )
                return answer
            self._pool.drop(answer.connection)
            uri = _target(uri, location, self._sha256)
        raise LoadFailure(Reason.FETCH_FAILED, f"{uri.host} redirects more than {_MAX_REDIRECTS} times")

    def _body(self, answer: Answer) -> Generator[memoryview, None, None]:
        response, reusable, part = answer.response, False, answer.content_range()
        declared, received = part[1] - part[0] if part else response.length, 0
        buffer = memoryview(bytearray(_CHUNK))
        try:
            while count := response.readinto(buffer):
                received += count
                yield buffer[:count]
            if declared is not None and received != declared:
                raise TransientError(f"{answer.uri.host} sent {received} of {declared} bytes")
            reusable = not response.will_close
        finally:
            (self._pool.keep if reusable else self._pool.drop)(answer.connection)

    def _refuse(self, answer: Answer) -> NoReturn:
        self._pool.drop(answer.connection)
        response, uri = answer.response, answer.uri
        message = f"{uri.host} answered {response.status} {response.reason} for {uri.path[:200]!r}"
        if response.status in _PASSING:
            raise TransientError(message)
        raise LoadFailure(Reason.FETCH_FAILED, message)


def _target(uri: ModelUri, location: str, sha256: str) -> ModelUri:
    try:
        target = parse(urljoin(uri.text, location), sha256=sha256, local_files=False)
    except LoadFailure as refused:
        raise LoadFailure(Reason.FETCH_FAILED, f"{uri.host} redirects to a refused place: {refused}") from refused
    if target.scheme not in ("http", "https"):
        raise LoadFailure(Reason.FETCH_FAILED, f"{uri.host} redirects to {target.scheme}://, which is not followed")
    return target


class _Failures:
    """The network's errors as TransientError, the host named."""

    def __init__(self, host: str) -> None:
        self._host = host

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError | http.client.HTTPException):
            raise TransientError(f"{self._host}: {type(error).__name__}: {first_line(error)}") from error
