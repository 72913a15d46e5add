"""One Open Inference (V2) request over HTTP and the judgement of its answer.

A `Send` for the load generators: network errors and timeouts become a `Reply` with status 0, a 200 whose body
is wrong becomes an error. It never retries.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from inflight_probe.load import Reply, Send

Read = Callable[[int, Mapping[str, Any]], Any]
"""(request number, V2 answer) → the answer's value; raises ValueError when the answer is wrong."""


@dataclass(frozen=True)
class Target:
    """Where a model answers: `url` is the router (or one pod), the rest is said in path or Host header."""

    url: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def infer(self) -> str:
        """The infer URL."""
        return f"{self.url}/v2/models/{self.model}/infer"


def through(router: str, namespace: str, name: str, variant: str | None = None) -> Target:
    """A ModelDeployment by the router's path form, or one of its variants."""
    direct = f"/variants/{variant}" if variant else ""
    return Target(f"{router}/{namespace}/{name}{direct}", name)


def request_body(name: str, rows: Sequence[Sequence[float]], datatype: str = "FP32") -> bytes:
    """A V2 JSON request with one input of shape [rows, columns]."""
    flat = [value for row in rows for value in row]
    tensor = {"name": name, "datatype": datatype, "shape": [len(rows), len(rows[0])], "data": flat}
    return json.dumps({"inputs": [tensor]}).encode()


def output(answer: Mapping[str, Any], name: str | None = None) -> Any:
    """The first value of the named output (the first when unnamed); ValueError if not there."""
    for tensor in answer.get("outputs", []):
        if name in (None, tensor["name"]):
            return tensor["data"][0]
    raise ValueError(f"no output {name or ''} in {str(answer)[:200]}")


@asynccontextmanager
async def session(clients: int = 0, timeout_seconds: float = 30) -> AsyncIterator[aiohttp.ClientSession]:
    """A keep-alive session of at most `clients` connections (0: no limit)."""
    connector = aiohttp.TCPConnector(limit=clients, keepalive_timeout=30, force_close=False)
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as http:
        yield http


def sender(http: aiohttp.ClientSession, target: Target, bodies: Sequence[bytes], read: Read) -> Send:
    """A `Send` that posts `bodies` in turn and lets `read` judge every 200."""
    headers = {"content-type": "application/json", **target.headers}

    async def send(number: int) -> Reply:
        body = bodies[number % len(bodies)]
        try:
            async with http.post(target.infer, data=body, headers=headers, allow_redirects=False) as answer:
                return _judge(number, answer, await answer.read(), read)
        except TimeoutError:
            return Reply(0, "client timeout")
        except aiohttp.ClientError as error:
            return Reply(0, f"{type(error).__name__}: {error}"[:120])

    return send


def _judge(number: int, answer: aiohttp.ClientResponse, body: bytes, read: Read) -> Reply:
    variant = answer.headers.get("x-inflight-variant", "")
    revision = answer.headers.get("x-inflight-revision", "")
    if answer.status != 200:
        return Reply(answer.status, _code(body), variant, revision)
    if not variant:
        return Reply(200, "no x-inflight-variant header", variant, revision)
    try:
        return Reply(200, "", variant, revision, read(number, json.loads(body)))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return Reply(200, f"wrong body: {error}", variant, revision)


def _code(body: bytes) -> str:
    """The stable `code` of an error body, or its first words."""
    try:
        return str(json.loads(body)["code"])
    except (ValueError, KeyError, TypeError):
        return body[:60].decode(errors="replace")
