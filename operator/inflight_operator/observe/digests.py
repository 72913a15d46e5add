"""Asks a pod which model it serves. The pod is a tenant's: nothing is sent along, and little of its answer believed."""

from __future__ import annotations

import json
import re
from ipaddress import IPv6Address, ip_address
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import structlog

from inflight_operator.api import names
from inflight_operator.observe.answers import body_of

_log: Final = structlog.get_logger(__name__)

_SECONDS: Final = 2.0
_MAX_BYTES: Final = 256 * 1024
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


async def ask(address: str, model: str, port: int = names.HTTP_PORT) -> str | None:
    """The sha256 that the server at a pod's `address` (an IP) tells for `model`; None when it can't be had now."""
    try:
        ip = ip_address(address)
        host = f"[{ip}]" if isinstance(ip, IPv6Address) else str(ip)
        url = f"http://{host}:{port}/v2/models/{quote(model, safe='')}"
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session,
            session.get(url, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            return _told(await body_of(answer, _MAX_BYTES)) if answer.status == 200 else None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        _log.info(
            "a pod can't be asked for its model's digest", address=address, error=f"{type(error).__name__}: {error}"
        )
        return None


def _told(body: bytes) -> str | None:
    answer: Any = json.loads(body)
    parameters = answer.get("parameters") if isinstance(answer, dict) else None
    found = parameters.get("sha256") if isinstance(parameters, dict) else None
    return found if isinstance(found, str) and _SHA256.fullmatch(found) else None
