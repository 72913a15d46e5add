"""Connections to where models come from: kept open between requests, and only to addresses that have been vetted.

Object-store libraries resolve names by themselves, so they can't be held to vetted addresses.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import re
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from model_server import __version__
from model_server.storage import addresses
from model_server.storage.uri import ModelUri

_CONNECT_SECONDS: Final = 8.0
_READ_SECONDS: Final = 30.0
_PARTIAL: Final = 206
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
class Answer:
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


class Pool:
    """Connections of one fetch. Safe to use from several threads."""

    def __init__(self, *, any_address: bool) -> None:
        self._any_address = any_address
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self.closed = False

    def ask(self, uri: ModelUri, headers: dict[str, str]) -> Answer:
        """One GET, on a connection that is open already where there is one. OSError, HTTPException."""
        while (connection := self._taken(uri)) is not None:
            try:
                return self._sent(connection, uri, headers)
            except (OSError, http.client.HTTPException):
                self.drop(connection)  # the server had closed it meanwhile
        connection = _Connection(uri, any_address=self._any_address)
        self._open.add(connection)
        try:
            return self._sent(connection, uri, headers)
        except BaseException:
            self.drop(connection)
            raise

    def keep(self, connection: _Connection) -> None:
        """Its answer has been read to the end: it may serve another request."""
        self._idle.append(connection)
        if self.closed:
            self.drop(connection)

    def drop(self, connection: _Connection) -> None:
        """Close it."""
        self._open.discard(connection)
        connection.close()

    def close(self) -> None:
        """End every read, from another thread too."""
        self.closed = True
        for connection in list(self._open):
            connection.shut()
        while self._idle:
            self.drop(self._idle.pop())

    def _sent(self, connection: _Connection, uri: ModelUri, headers: dict[str, str]) -> Answer:
        if self.closed:
            raise ConnectionError("the fetch has ended")
        parts = urlsplit(uri.text)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        agent = f"inflight-model-server/{__version__}"
        always = {"User-Agent": agent, "Accept-Encoding": "identity"}
        return Answer(connection, connection.answer(path or "/", always | headers), uri)

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
