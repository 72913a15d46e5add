"""Request headers: what the server reads of them, checked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from model_server.errors import Code, Problem
from model_server.queues import Priority

_REQUEST_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_MILLISECONDS: Final = re.compile(rb"-?\d+")
_JSON: Final = b"application/json"
_PRIORITIES: Final = {priority.name.lower().encode(): priority for priority in Priority}


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The headers that matter here; the last one wins where a header is repeated."""

    fields: dict[bytes, bytes]

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Self:
        """From header names (lower case) and values."""
        return cls(dict(headers))

    def request_id(self) -> str:
        """The client's x-request-id, or a new one where it has none that can be echoed."""
        given = self.fields.get(b"x-request-id", b"")
        return given.decode() if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()

    def check_media_type(self) -> None:
        """Problem(unsupported_media_type) unless the body is plain JSON; no content type counts as JSON."""
        media_type = self.fields.get(b"content-type", _JSON)
        if media_type != _JSON and media_type.split(b";", 1)[0].strip().lower() != _JSON:
            raise Problem(Code.UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")
        encoding = self.fields.get(b"content-encoding")
        if encoding is not None and encoding.strip().lower() != b"identity":
            raise Problem(Code.UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed")

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
        routers = self.fields.get(b"x-envoy-expected-rq-timeout-ms", b"")
        if _MILLISECONDS.fullmatch(routers):
            milliseconds = min(milliseconds, _clamped(routers))
        return max(0.0, milliseconds / 1000)


def _clamped(digits: bytes) -> int:
    """An integer of any length; more than 12 digits are as good as for ever."""
    if digits.startswith(b"-"):
        return 0
    return int(digits) if len(digits) <= 12 else 10**12


def too_large(limit: int) -> Problem:
    """Problem(too_large)."""
    return Problem(Code.TOO_LARGE, f"the body is larger than {limit} bytes")
