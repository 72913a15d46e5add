"""One file over https, or over http where a digest vouches for it.

It connects only to addresses it has vetted, follows at most three redirects and vets each, and sends no credentials.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import urljoin, urlsplit

from model_server import __version__
from model_server.errors import LoadFailure, Reason, first_line
from model_server.storage import addresses
from model_server.storage.attempts import TransientError
from model_server.storage.uri import ModelUri, parse

_MAX_REDIRECTS: Final = 3
_CONNECT_SECONDS: Final = 8.0
_READ_SECONDS: Final = 30.0
_CHUNK: Final = 256 * 1024
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_PASSING: Final = frozenset((408, 425, 429, 500, 502, 503, 504))


class _Connection(http.client.HTTPConnection):
    """A connection to one of the vetted addresses of a host, and to no other."""

    def __init__(self, host: str, port: int, *, tls: bool, any_address: bool) -> None:
        super().__init__(host, port, timeout=_READ_SECONDS)
        self.default_port = 443 if tls else 80
        self._tls = tls
        self._any_address = any_address

    def connect(self) -> None:
        """Open `self.sock`."""
        found = addresses.resolve(self.host, self.port, any_address=self._any_address)
        raw = _connected(found, self.port)
        raw.settimeout(_READ_SECONDS)
        self.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=self.host) if self._tls else raw


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


def chunks(uri: ModelUri, *, sha256: str, local_files: bool) -> Iterator[bytes]:
    """The body of `uri`, complete or TransientError. LoadFailure: FetchFailed for answers that won't change."""
    try:
        yield from _followed(uri, sha256, local_files)
    except (OSError, http.client.HTTPException) as error:
        raise TransientError(f"{uri.host}: {type(error).__name__}: {first_line(error)}") from error


def _followed(uri: ModelUri, sha256: str, local_files: bool) -> Iterator[bytes]:
    for _ in range(_MAX_REDIRECTS + 1):
        parts = urlsplit(uri.text)
        tls = uri.scheme == "https"
        connection = _Connection(uri.host, parts.port or (443 if tls else 80), tls=tls, any_address=local_files)
        try:
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            agent = f"inflight-model-server/{__version__}"
            connection.request("GET", path or "/", headers={"User-Agent": agent, "Accept-Encoding": "identity"})
            response = connection.getresponse()
            location = response.getheader("location")
            if response.status not in _REDIRECTS or not location:
                yield from _body(response, uri)
                return
            uri = _redirected(uri, location, sha256)
        finally:
            connection.close()
    raise LoadFailure(Reason.FETCH_FAILED, f"{uri.host} redirects more than {_MAX_REDIRECTS} times")


def _redirected(uri: ModelUri, location: str, sha256: str) -> ModelUri:
    try:
        target = parse(urljoin(uri.text, location), sha256=sha256, local_files=False)
    except LoadFailure as refused:
        raise LoadFailure(Reason.FETCH_FAILED, f"{uri.host} redirects to a refused place: {refused}") from refused
    if target.scheme not in ("http", "https"):
        raise LoadFailure(Reason.FETCH_FAILED, f"{uri.host} redirects to {target.scheme}://, which is not followed")
    return target


def _body(response: http.client.HTTPResponse, uri: ModelUri) -> Iterator[bytes]:
    if response.status != 200:
        message = f"{uri.host} answered {response.status} {response.reason} for {uri.path[:200]!r}"
        if response.status in _PASSING:
            raise TransientError(message)
        raise LoadFailure(Reason.FETCH_FAILED, message)
    if response.getheader("content-encoding", "identity") != "identity":
        raise LoadFailure(Reason.FETCH_FAILED, f"{uri.host} sent the model compressed although asked not to")
    declared, received = response.length, 0
    while chunk := response.read(_CHUNK):
        received += len(chunk)
        yield chunk
    if declared is not None and received != declared:
        raise TransientError(f"{uri.host} sent {received} of {declared} bytes")
