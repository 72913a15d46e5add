"""Request headers and bodies: what the server reads of them, checked, bounded in bytes and in time."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from starlette.types import Message, Receive, Scope

from model_server.errors import Code, Problem

_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_MILLISECONDS: Final = re.compile(rb"-?\d+")
_READ: Final = frozenset(
    (
        b"content-type",
        b"content-length",
        b"content-encoding",
        b"x-request-id",
        b"x-request-timeout-ms",
        b"x-envoy-expected-rq-timeout-ms",
    )
)


class ClientLeftError(Exception):
    """The connection was closed before the request was complete."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The headers that matter here; the last one wins where a header is repeated."""

    fields: dict[bytes, bytes]

    @classmethod
    def of(cls, scope: Scope) -> Self:
        """From an ASGI scope."""
        return cls({name: value for name, value in scope["headers"] if name in _READ})

    def request_id(self) -> str:
        """The client's x-request-id, or a new one where it has none that can be echoed."""
        given = self.fields.get(b"x-request-id", b"")
        return given.decode() if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()

    def check_media_type(self) -> None:
        """Problem(unsupported_media_type) unless the body is plain JSON; no content type counts as JSON."""
        media_type = self.fields.get(b"content-type", b"application/json").split(b";", 1)[0].strip().lower()
        if media_type != b"application/json":
            raise Problem(Code.UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")
        if self.fields.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            raise Problem(Code.UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed")

    def timeout_seconds(self, most: float) -> float:
        """Seconds this request may take: `most`, or less where the client or the router says so."""
        milliseconds = 1000 * most
        if (given := self.fields.get(b"x-request-timeout-ms")) is not None:
            if not _MILLISECONDS.fullmatch(given):
                raise Problem(Code.BAD_REQUEST, "x-request-timeout-ms must be a whole number of milliseconds")
            milliseconds = min(milliseconds, _clamped(given))
        routers = self.fields.get(b"x-envoy-expected-rq-timeout-ms", b"")
        if _MILLISECONDS.fullmatch(routers):
            milliseconds = min(milliseconds, _clamped(routers))
        return max(0.0, milliseconds / 1000)


def _clamped(digits: bytes) -> int:
    """An integer of any length; more than 12 digits are as good as for ever."""
    if digits.startswith(b"-"):
        return 0
    return int(digits) if len(digits) <= 12 else 10**12


async def read_body(receive: Receive, head: RequestHead, limit: int, deadline: float) -> bytes:
    """The whole body. Problem: too_large (before reading, where the length is declared), body_timeout."""
    declared = head.fields.get(b"content-length", b"0")
    if not declared.isdigit() or len(declared) > 18:
        raise Problem(Code.BAD_REQUEST, "content-length must be a number")
    if int(declared) > limit:
        raise _too_large(limit)
    # Nearly always all of a small body is there already.
    message = poll(receive)
    if message is not None and not message.get("more_body", False):
        return _checked(bytes(_part(message)), limit)
    try:
        async with asyncio.timeout_at(deadline):
            return await _collected(receive, message, limit)
    except TimeoutError:
        raise Problem(Code.BODY_TIMEOUT, "the request body did not arrive before the deadline") from None


async def _collected(receive: Receive, message: Message | None, limit: int) -> bytes:
    collected = bytearray()
    more = True
    while more:
        if message is None:
            message = await receive()
        collected += _part(message)
        more = message.get("more_body", False)
        message = None
        _checked(collected, limit)
    return bytes(collected)


def _part(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientLeftError
    part: bytes = message.get("body", b"")
    return part


B = TypeVar("B", bytes, bytearray)


def _checked(body: B, limit: int) -> B:
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> Problem:
    return Problem(Code.TOO_LARGE, f"the body is larger than {limit} bytes")


async def departure(receive: Receive) -> None:
    """Return when the client has left; the body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


def has_left(receive: Receive) -> bool:
    """Whether the client has left already."""
    message = poll(receive)
    return message is not None and message["type"] == "http.disconnect"


def poll(receive: Receive) -> Message | None:
    """What `receive` has ready now, if anything: one step of it, never waiting, and without the cost of a task."""
    step: Any = receive()
    try:
        step.send(None)
    except StopIteration as ready:
        message: Message = ready.value
        return message
    step.close()
    return None
