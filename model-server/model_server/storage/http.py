"""One file over https, or over http where a digest vouches for it; in pieces where the server allows it.

It connects only to addresses it has vetted, follows at most three redirects and vets each, and sends no credentials.
(Object-store libraries resolve names by themselves, so they can't be held to vetted addresses.)
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import re
import socket
import ssl
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import urljoin, urlsplit

from model_server import __version__
from model_server.errors import LoadFailure, Reason, first_line
from model_server.storage import addresses
from model_server.storage.attempts import TransientError
from model_server.storage.remote import PIECE_BYTES, ChangedError
from model_server.storage.uri import ModelUri, parse

_MAX_REDIRECTS: Final = 3
_CONNECT_SECONDS: Final = 8.0
_READ_SECONDS: Final = 30.0
_CHUNK: Final = 256 * 1024
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_PASSING: Final = frozenset((408, 425, 429, 500, 502, 503, 504))
_EXPIRED: Final = frozenset((401, 403, 404, 410))
"""What a redirect's target says when the permission in its URL has run out."""
_PARTIAL, _NOT_SATISFIABLE, _FAILED_CONDITION = 206, 416, 412
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")

Origin = tuple[str, str, int | None]


class _Connection(http.client.HTTPConnection):
    """A connection to one of the vetted addresses of a host, and to no other."""

    def __init__(self, uri: ModelUri, *, any_address: bool) -> None:
        self.origin = _origin(uri)
        self._tls = uri.scheme == "https"
        super().__init__(uri.host, self.origin[2] or (443 if self._tls else 80), timeout=_READ_SECONDS)
        self.default_port = 443 if self._tls else 80
        self._any_address = any_address
        self._kept: socket.socket | None = None
        self._answer: http.client.HTTPResponse | None = None

    def connect(self) -> None:
        """Open `self.sock`."""
        found = addresses.resolve(self.host, self.port, any_address=self._any_address)
        raw = _connected(found, self.port)
        raw.settimeout(_READ_SECONDS)
        self.sock = self._kept = _tls_context().wrap_socket(raw, server_hostname=self.host) if self._tls else raw

    def shut(self) -> None:
        """Wake whoever reads from it in another thread."""
        if self._kept is not None:
            with contextlib.suppress(OSError):  # it is closed already
                self._kept.shutdown(socket.SHUT_RDWR)

    def answer(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """Send a GET and read the head of what comes back."""
        self.request("GET", path, headers=headers)
        self._answer = self.getresponse()
        return self._answer

    def close(self) -> None:
        """Also where http.client has let go of the socket already, because the server will close it."""
        super().close()
        if self._answer is not None:
            self._answer.close()


@functools.cache
def _tls_context() -> ssl.SSLContext:
    """One for all connections: reading the authorities' certificates takes longer than a handshake."""
    return ssl.create_default_context()


def _origin(uri: ModelUri) -> Origin:
    return uri.scheme, uri.host, urlsplit(uri.text).port


def _connected(found: list[str], port: int) -> socket.socket:
    deadline = time.monotonic() + _CONNECT_SECONDS
    error: OSError = ConnectionError("no address")
    for address in found:
        try:
            return socket.create_connection((address, port), timeout=max(0.5, deadline - time.monotonic()))
        except OSError as refused:
            error = refused
        if time.monotonic() >= deadline:
            break
    raise error


@dataclass(frozen=True)
class _Answer:
    """The head of an answer, its body still to be read."""

    connection: _Connection
    response: http.client.HTTPResponse
    uri: ModelUri

    @property
    def status(self) -> int:
        return self.response.status

    def content_range(self) -> tuple[int, int, int] | None:
        """(first byte, byte after the last, bytes of the whole file), where the answer is such a part."""
        found = _CONTENT_RANGE.fullmatch(self.response.getheader("content-range", ""))
        if self.status != _PARTIAL or found is None:
            return None
        first, last, total = map(int, found.groups())
        sound = first <= last < total and self.response.length in (None, last - first + 1)
        return (first, last + 1, total) if sound else None


class HttpFile:
    """See Remote. One GET for the first piece tells all: the size, the version, whether there are ranges."""

    def __init__(self, uri: ModelUri, *, sha256: str, local_files: bool) -> None:
        self._asked, self._sha256, self._local_files = uri, sha256, local_files
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._closed = False
        self._location = uri
        self._etag = ""
        self.size: int | None = None
        self.ranges = False
        self._first: _Answer | None = None
        self._first_at = 0

    @property
    def version(self) -> str:
        """See Remote. Weak tags stand for what merely looks alike."""
        return "" if self._etag.startswith("W/") else self._etag

    def begin(self, first: tuple[int, int] | None = None) -> HttpFile:
        """Send the first request, for the part [start, stop) that is wanted `first`, or the beginning.

        TransientError; LoadFailure(FetchFailed) for answers that won't change.
        """
        start, stop = first or (0, PIECE_BYTES)
        with _Failures(self._asked.host):
            answer = self._follow(self._asked, {"Range": f"bytes={start}-{stop - 1}"})
            part = answer.content_range()
            self._etag = answer.response.getheader("etag", "")
            # Without a version to ask for, parts may be of different files; a digest would tell.
            sure = bool(self.version or self._sha256)
            if part and part[0] == start and (sure or part[:2] == (0, part[2])):
                self.size, self.ranges = part[2], sure
            elif answer.status in (_PARTIAL, _NOT_SATISFIABLE):
                self._drop(answer.connection)
                if start:
                    return self.begin()
                answer = self._follow(self._asked, {})
                if answer.status != 200:
                    self._refuse(answer)
                self.size = answer.response.length
            elif answer.status == 200:
                self.size = answer.response.length
            else:
                self._refuse(answer)
        self._location = answer.uri
        self._first, self._first_at = answer, start if self.ranges else 0
        return self

    def read(self, start: int, stop: int | None) -> Generator[memoryview, None, None]:
        """See Remote."""
        with _Failures(self._asked.host):
            if start == self._first_at and self._first is not None:  # one worker at a time has the piece there
                answer, self._first = self._first, None
            elif self.ranges and stop is not None:
                answer = self._part(start, stop)
            else:
                raise ChangedError(f"{self._asked.host} can only send the whole file again")
            yield from self._body(answer)

    def close(self) -> None:
        """See Remote."""
        self._closed = True
        for connection in list(self._open):
            connection.shut()
        while self._idle:
            self._drop(self._idle.pop())
        if self._first is not None:
            self._drop(self._first.connection)

    def _part(self, start: int, stop: int) -> _Answer:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if self.version:
            headers["If-Range"] = self.version
        answer = self._follow(self._location, headers)
        if answer.status in _EXPIRED and self._location != self._asked:
            self._drop(answer.connection)
            answer = self._follow(self._asked, headers)
            self._location = answer.uri
        if answer.status in (200, _NOT_SATISFIABLE, _FAILED_CONDITION):
            self._drop(answer.connection)
            raise ChangedError(f"{self._asked.host} has another file now than when fetching it began")
        part = answer.content_range()
        if part is None and answer.status != _PARTIAL:
            self._refuse(answer)
        etag = answer.response.getheader("etag", self._etag)
        if part is None or part[0] != start or part[1] > stop or part[2] != self.size or etag != self._etag:
            self._drop(answer.connection)
            raise ChangedError(f"{self._asked.host} sent another part, or of another file, than it was asked for")
        return answer

    def _follow(self, uri: ModelUri, headers: dict[str, str]) -> _Answer:
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self._ask(uri, headers)
            location = answer.response.getheader("location")
            if answer.status not in _REDIRECTS or not location:
                if answer.response.getheader("content-encoding", "identity") != "identity":
                    self._drop(answer.connection)
                    raise LoadFailure(
                        Reason.FETCH_FAILED, f"{uri.host} sent the model compressed although asked not to"
                    )
                return answer
            self._drop(answer.connection)
            uri = _redirected(uri, location, self._sha256)
        raise LoadFailure(Reason.FETCH_FAILED, f"{uri.host} redirects more than {_MAX_REDIRECTS} times")

    def _ask(self, uri: ModelUri, headers: dict[str, str]) -> _Answer:
        """One request, on a connection that is open already where there is one."""
        while (connection := self._taken(uri)) is not None:
            try:
                return self._sent(connection, uri, headers)
            except (OSError, http.client.HTTPException):
                self._drop(connection)  # the server had closed it meanwhile
        connection = _Connection(uri, any_address=self._local_files)
        self._open.add(connection)
        try:
            return self._sent(connection, uri, headers)
        except BaseException:
            self._drop(connection)
            raise

    def _sent(self, connection: _Connection, uri: ModelUri, headers: dict[str, str]) -> _Answer:
        if self._closed:
            raise ConnectionError("the fetch has ended")
        parts = urlsplit(uri.text)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        agent = f"inflight-model-server/{__version__}"
        always = {"User-Agent": agent, "Accept-Encoding": "identity"}
        return _Answer(connection, connection.answer(path or "/", always | headers), uri)

    def _taken(self, uri: ModelUri) -> _Connection | None:
        wanted = _origin(uri)
        for connection in tuple(self._idle):
            if connection.origin == wanted:
                try:
                    self._idle.remove(connection)
                except ValueError:
                    continue  # another thread was quicker
                return connection
        return None

    def _body(self, answer: _Answer) -> Generator[memoryview, None, None]:
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
            if reusable:
                self._idle.append(answer.connection)
            if not reusable or self._closed:
                self._drop(answer.connection)

    def _drop(self, connection: _Connection) -> None:
        self._open.discard(connection)
        connection.close()

    def _refuse(self, answer: _Answer) -> NoReturn:
        self._drop(answer.connection)
        response, uri = answer.response, answer.uri
        message = f"{uri.host} answered {response.status} {response.reason} for {uri.path[:200]!r}"
        if response.status in _PASSING:
            raise TransientError(message)
        raise LoadFailure(Reason.FETCH_FAILED, message)


def _redirected(uri: ModelUri, location: str, sha256: str) -> ModelUri:
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
