"""What is asked: the URL, its body, and what a right answer looks like. Bodies are made from a model's metadata."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
from yarl import URL

from model_server.loadtest.plan import LoadTestError

_V2: Final = re.compile(r"(?P<base>.*)/v2/models/(?P<name>[^/]+)(?P<version>/versions/[^/]+)?(?P<verb>/infer)?/?")
_V1: Final = re.compile(r"(?P<base>.*)/v1/models/(?P<name>[^/:]+)(?P<verb>:predict)?/?")
_METADATA_SECONDS: Final = 10.0
_ELEMENTS_MOST: Final = 10_000_000


@dataclass(frozen=True)
class Target:
    """One request, sent again and again."""

    url: URL
    method: str
    body: bytes | None
    headers: Mapping[str, str]
    member: bytes = b""
    """What the body of a right answer contains: '"outputs"' for protocol V2; empty: only the status is looked at."""


@dataclass(frozen=True)
class _Protocol:
    url: URL
    """To send predictions to."""
    metadata: URL
    member: bytes


async def prepare(
    http: aiohttp.ClientSession, url: URL, body: str | None, headers: Mapping[str, str], deadline_ms: int | None
) -> Target:
    """The target. `body` is JSON, or else names a file; without one it is made from the model's metadata.

    `deadline_ms` is told to prediction URLs as x-request-timeout-ms. LoadTestError when there is no body to send.
    """
    protocol = _protocol(url)
    content = None if body is None else _given(body)
    if protocol is None:
        typed = {"content-type": _media_type(content), **headers} if content is not None else headers
        return Target(url, "GET" if content is None else "POST", content, typed)
    if content is None:
        content = await _from_metadata(http, protocol, headers)
    deadline = {} if deadline_ms is None else {"x-request-timeout-ms": str(deadline_ms)}
    typed = {"content-type": _media_type(content), **deadline, **headers}
    return Target(protocol.url, "POST", content, typed, protocol.member)


def _protocol(url: URL) -> _Protocol | None:
    path = url.raw_path
    if match := _V2.fullmatch(path):
        metadata = f"{match['base']}/v2/models/{match['name']}{match['version'] or ''}"
        return _Protocol(_at(url, f"{metadata}/infer"), _at(url, metadata), b'"outputs"')
    if match := _V1.fullmatch(path):
        asked = f"{match['base']}/v1/models/{match['name']}:predict"
        return _Protocol(_at(url, asked), _at(url, f"{match['base']}/v2/models/{match['name']}"), b'"predictions"')
    return None


def _at(url: URL, path: str) -> URL:
    return url.with_path(path, encoded=True, keep_query=True)


def _given(body: str) -> bytes:
    if body.lstrip().startswith(("{", "[")):
        return body.encode()
    try:
        return Path(body).read_bytes()
    except OSError as error:
        raise LoadTestError(
            f"--body: can't read {body}: {error.strerror}; give JSON, or a file that holds it"
        ) from None


def _media_type(body: bytes) -> str:
    try:
        json.loads(body)
    except ValueError:
        return "application/octet-stream"
    return "application/json"


async def _from_metadata(http: aiohttp.ClientSession, protocol: _Protocol, headers: Mapping[str, str]) -> bytes:
    url = protocol.metadata
    try:
        async with (
            asyncio.timeout(_METADATA_SECONDS),
            http.get(url, headers=headers, allow_redirects=False) as response,
        ):
            status, content = response.status, await response.read()
    except (aiohttp.ClientError, OSError) as error:
        text = str(error) or type(error).__name__
        raise LoadTestError(f"can't ask {url} for the model's inputs: {text}") from None
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise LoadTestError(f"{url} answers 503: the model isn't ready yet; try again when it is")
    if status != HTTPStatus.OK:
        raise LoadTestError(f"{url} answers {status} instead of the model's inputs; give --body, or mend the URL")
    try:
        inputs = json.loads(content)["inputs"]
        if not inputs:
            raise LoadTestError(f"the model at {url} doesn't say what its inputs are; give --body")
        return example(inputs, v1=protocol.member == b'"predictions"')
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LoadTestError(f"{url} answers no V2 metadata; give --body") from None


def example(inputs: Sequence[Mapping[str, Any]], *, v1: bool = False) -> bytes:
    """A request with one row for these V2 input specs: zeros, and empty strings. LoadTestError if V1 can't ask it."""
    tensors = []
    for spec in inputs:
        shape = [max(int(size), 1) for size in spec["shape"]]
        if math.prod(shape) > _ELEMENTS_MOST:
            raise LoadTestError(f"input {spec['name']!r} has {math.prod(shape)} elements; give --body")
        flat = [_zero(spec["datatype"])] * math.prod(shape)
        tensors.append({"name": spec["name"], "datatype": spec["datatype"], "shape": shape, "data": flat})
    if not v1:
        return json.dumps({"inputs": tensors}).encode()
    if len(tensors) != 1:
        raise LoadTestError("protocol V1 can't ask a model of several inputs; use its /v2/models/NAME/infer")
    return json.dumps({"instances": _nested(tensors[0]["data"], tensors[0]["shape"])}).encode()


def _zero(datatype: str) -> Any:
    if datatype == "BYTES":
        return ""
    if datatype == "BOOL":
        return False
    return 0.0 if datatype.startswith(("FP", "BF")) else 0


def _nested(flat: list[Any], shape: Sequence[int]) -> list[Any]:
    if len(shape) <= 1:
        return flat
    size = len(flat) // shape[0]
    return [_nested(flat[row * size : (row + 1) * size], shape[1:]) for row in range(shape[0])]
