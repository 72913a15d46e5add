"""The two kinds of failure: a request that can't be answered (Problem), a model that can't be served (LoadFailure).

Nothing here knows HTTP: which status a code gets is decided in rest.problems only.
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """Why a request was not answered; stable, part of the wire contract."""

    INVALID_JSON = "invalid_json"
    BAD_INPUT = "bad_input"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    BODY_TIMEOUT = "body_timeout"
    MODEL_NOT_FOUND = "model_not_found"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BAD_REQUEST = "bad_request"
    NOT_READY = "not_ready"
    QUEUE_FULL = "queue_full"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    MODEL_ERROR = "model_error"
    WORKER_LOST = "worker_lost"
    INTERNAL = "internal"


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """A request that ends without a prediction; `detail` is read by the client, so it must leak nothing internal."""

    def __init__(self, code: Code, detail: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after_ms = retry_after_ms
        """When to come back, for refusals that will pass."""


class Reason(StrEnum):
    """Why a model can't be served; becomes the reason of the ModelDeployment's Ready condition."""

    INVALID_SETTINGS = "InvalidSettings"
    FETCH_FAILED = "FetchFailed"
    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105  # nosec B105 # a reason
    DIGEST_MISMATCH = "DigestMismatch"
    UNSAFE_FORMAT = "UnsafeFormat"
    UNSAFE_ARCHIVE = "UnsafeArchive"
    UNSUPPORTED_FORMAT = "UnsupportedFormat"
    LOAD_FAILED = "LoadFailed"


class LoadFailure(Exception):  # noqa: N818 - an outcome with a reason, told as such
    """The server can't start serving; `message` says what happened, where, and what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an exception's text, printable and at most `limit` characters."""
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return "".join(char if char.isprintable() else " " for char in text)[:limit]
