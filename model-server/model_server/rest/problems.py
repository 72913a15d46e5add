"""The single mapping from a Problem to an HTTP answer: application/problem+json (RFC 9457) with `error` and `code`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

import orjson

from model_server.errors import Code, Problem

STATUS: Final[dict[Code, int]] = {
    Code.INVALID_JSON: 400,
    Code.BAD_REQUEST: 400,
    Code.NOT_FOUND: 404,
    Code.MODEL_NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.BODY_TIMEOUT: 408,
    Code.TOO_LARGE: 413,
    Code.UNSUPPORTED_MEDIA_TYPE: 415,
    Code.BAD_INPUT: 422,
    Code.QUEUE_FULL: 429,
    Code.CANCELLED: 499,
    Code.INTERNAL: 500,
    Code.MODEL_ERROR: 500,
    Code.WORKER_LOST: 502,
    Code.NOT_READY: 503,
    Code.DEADLINE: 504,
}

Headers = tuple[tuple[bytes, bytes], ...]

JSON: Final = (b"content-type", b"application/json")
OCTETS: Final = (b"content-type", b"application/octet-stream")
_PROBLEM_JSON: Final = (b"content-type", b"application/problem+json")
_REFUSED_BY: Final = (b"x-inflight-refused-by", b"server")
_JSON_ONLY: Final = (JSON,)
_PHRASES: Final = {499: "Client Closed Request", 422: "Unprocessable Content", 413: "Content Too Large"}


class Answer(NamedTuple):
    """One complete HTTP answer, without what every answer gets (length, request id)."""

    status: int
    body: bytes
    headers: Headers = _JSON_ONLY
    tail: Sequence[memoryview] = ()
    """Large parts of the body that come after `body`, perhaps sent after the answer was given: nobody changes them."""


def answer(problem: Problem, request_id: str) -> Answer:
    """The answer for `problem`. Its text is the Problem's detail and nothing else: no traceback, no path."""
    status = STATUS[problem.code]
    body = {
        "type": "about:blank",
        "title": _PHRASES.get(status) or HTTPStatus(status).phrase,
        "status": status,
        "detail": problem.detail,
        "code": problem.code.value,
        "error": problem.detail,
        "request_id": request_id,
    }
    headers = [_PROBLEM_JSON, _REFUSED_BY]
    if problem.retry_after_ms is not None:
        seconds = max(1, math.ceil(problem.retry_after_ms / 1000))
        headers.append((b"retry-after", b"%d" % seconds))
        headers.append((b"x-inflight-retry-after-ms", b"%d" % problem.retry_after_ms))
    if problem.code is Code.UNSUPPORTED_MEDIA_TYPE:
        headers.append((b"accept", b"application/json, application/octet-stream"))
        headers.append((b"accept-encoding", b"gzip, deflate, identity"))
    if problem.code is Code.METHOD_NOT_ALLOWED:
        headers.append((b"allow", b"POST"))  # of predictions; what else there is says its own
    return Answer(status, orjson.dumps(body), tuple(headers))
