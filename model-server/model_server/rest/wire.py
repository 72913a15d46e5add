"""Request headers: what the server reads of them, checked."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from typing import Final, NamedTuple, Self

from model_server.errors import Code, Problem
from model_server.queues import Priority

_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_ROUTERS_LIMITS: Final = (b"x-inflight-timeout-ms", b"x-envoy-expected-rq-timeout-ms")
"""traffic.timeoutMilliseconds, which a caller can't raise, and how long the router still waits."""
_MILLISECONDS: Final = re.compile(rb"-?\d+")
JSON_LENGTH: Final = b"inference-header-content-length"
"""How many bytes of the body are JSON; raw tensors follow."""
ALIGNMENT: Final = 16
"""As malloc's: what numbers of any type need."""
_JSON: Final = b"application/json"
_OCTETS: Final = b"application/octet-stream"
_COMPRESSED: Final = (b"gzip", b"deflate")
_PRIORITIES: Final = {priority.name.lower().encode(): priority for priority in Priority}


class RequestHead(NamedTuple):
    """The headers that matter here; the last one wins where a header is repeated."""

    fields: dict[bytes, bytes]

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Self:
        """From header names (lower case) and values."""
        return cls(dict(headers))

    def request_id(self) -> str:
        """The client's x-request-id, or a new one where it has none that can be echoed."""
        given = self.fields.get(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode()
        return f"{random.getrandbits(128):032x}"  # nosec B311 # it names a request, it guards nothing

    def check_media_type(self, *, raw: bool) -> None:
        """Problem(unsupported_media_type) unless the body is JSON, which no content type counts as.

        Where `raw` tensors are taken, it may be application/octet-stream, which must then say how much of it is JSON.
        """
        media_type = self.fields.get(b"content-type", _JSON)
        if media_type != _JSON and (essence := media_type.split(b";", 1)[0].strip().lower()) != _JSON:
            if essence != _OCTETS or not raw:
                wanted = "application/json, or application/octet-stream with raw tensors" if raw else "application/json"
                raise Problem(Code.UNSUPPORTED_MEDIA_TYPE, f"the body must be {wanted}")
            if JSON_LENGTH not in self.fields:
                detail = f"a body of application/octet-stream needs the header {JSON_LENGTH.decode()}"
                raise Problem(Code.UNSUPPORTED_MEDIA_TYPE, detail)
        if b"content-encoding" in self.fields and (coding := self._coding()) not in (b"identity", *_COMPRESSED):
            shown = coding.decode("latin-1")[:60]
            raise Problem(Code.UNSUPPORTED_MEDIA_TYPE, f"the body may be coded as gzip or deflate, not as {shown!r}")

    @property
    def compressed(self) -> bool:
        """Whether the body must be inflated."""
        return b"content-encoding" in self.fields and self._coding() in _COMPRESSED

    def _coding(self) -> bytes:
        return self.fields[b"content-encoding"].strip().lower()

    def json_length(self) -> int | None:
        """Bytes of JSON that raw tensors follow; None: none follow. Problem(bad_request)."""
        given = self.fields.get(JSON_LENGTH)
        if given is None:
            return None
        if not given.isdigit() or len(given) > 18:
            raise Problem(Code.BAD_REQUEST, f"{JSON_LENGTH.decode()} must be a number of bytes")
        return int(given)

    def padding(self) -> int:
        """Bytes that, put before the body, align the raw tensors behind its JSON."""
        given = self.fields.get(JSON_LENGTH, b"")
        return -int(given) % ALIGNMENT if given.isdigit() and len(given) <= 18 else 0

    def check_length(self, limit: int) -> None:
        """Problem(too_large) before anything is read, where the length is declared."""
        declared = self.fields.get(b"content-length", b"0")
        if not declared.isdigit() or len(declared) > 18:
            raise Problem(Code.BAD_REQUEST, "content-length must be a number")
        if int(declared) > limit:
            raise too_large(limit)

    def priority(self) -> Priority:
        """x-priority: high, normal or low; whatever else is said counts as normal, as no header does."""
        given = self.fields.get(b"x-priority")
        return Priority.NORMAL if given is None else _PRIORITIES.get(given.strip().lower(), Priority.NORMAL)

    def timeout_seconds(self, most: float) -> float:
        """Seconds this request may take: `most`, or less where the client or the router says so."""
        milliseconds = 1000 * most
        if (given := self.fields.get(b"x-request-timeout-ms")) is not None:
            if not _MILLISECONDS.fullmatch(given):
                raise Problem(Code.BAD_REQUEST, "x-request-timeout-ms must be a whole number of milliseconds")
            milliseconds = min(milliseconds, _clamped(given))
        for name in _ROUTERS_LIMITS:
            limit = self.fields.get(name)
            if limit is not None and _MILLISECONDS.fullmatch(limit):
                milliseconds = min(milliseconds, _clamped(limit))
        return max(0.0, milliseconds / 1000)


def _clamped(digits: bytes) -> int:
    """An integer of any length; more than 12 digits are as good as for ever."""
    if digits.startswith(b"-"):
        return 0
    return int(digits) if len(digits) <= 12 else 10**12


def too_large(limit: int) -> Problem:
    """Problem(too_large)."""
    return Problem(Code.TOO_LARGE, f"the body is larger than {limit} bytes")
