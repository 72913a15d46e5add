"""`helm test`: is what was installed at work? Asked from a pod, as clients and the API server would ask.

    the router   answers 404 in our own words for what nobody deployed: it has its listener from the operator
    the operator serves its metrics API, if it has one, with a certificate of the installation's authority

Standard library only: it runs in the operator's image, as a pod of its own, without a token.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 1.0
_NOBODY: Final = "/nobody/deployed/v2/models/this"

Check = Callable[[], str]
"""What was found, in words. Raises OSError, HTTPException or ValueError with what is wrong."""


def checks(environ: Mapping[str, str]) -> dict[str, Check]:
    """What to look at, by name, from INFLIGHT_ROUTER_URL, INFLIGHT_METRICS_API_URL and INFLIGHT_CA_FILE."""
    found: dict[str, Check] = {"router": lambda: _router(environ["INFLIGHT_ROUTER_URL"])}
    if url := environ.get("INFLIGHT_METRICS_API_URL"):
        found["metrics API"] = lambda: _metrics_api(url, environ["INFLIGHT_CA_FILE"])
    return found


def run(found: Mapping[str, Check], patience: float, say: Callable[[str], None] = print) -> bool:
    """Repeat each check until it succeeds or `patience` seconds are over; says how each ended."""
    end = time.monotonic() + patience
    passed = [_try(name, check, end, say) for name, check in found.items()]
    return all(passed)


def _try(name: str, check: Check, end: float, say: Callable[[str], None]) -> bool:
    while True:
        try:
            say(f"{name}: {check()}")
            return True
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= end:
                say(f"{name}: FAILED: {error}")
                return False
        time.sleep(_PAUSE_SECONDS)


def _router(url: str) -> str:
    # Whether its certificate is good for the names that clients use is theirs to say.
    context = ssl._create_unverified_context() if url.startswith("https:") else None  # noqa: S323  # nosec B323
    try:
        # The chart's own URL.
        with urlopen(Request(url + _NOBODY), timeout=5, context=context) as answer:  # noqa: S310  # nosec B310
            raise ValueError(f"{url + _NOBODY} answered {answer.status}: somebody else listens there")
    except HTTPError as refused:
        code = json.loads(refused.read() or b"{}").get("code")
        if (refused.code, code) != (404, "not_found"):
            raise ValueError(f"{url} answered {refused.code}, not our own 404: is the router the operator's?") from None
    return f"{url} has its configuration from the operator"


def _metrics_api(url: str, authority: str) -> str:
    context = ssl.create_default_context(cafile=authority)
    with urlopen(Request(f"{url}/healthz"), timeout=5, context=context) as answer:  # noqa: S310  # nosec B310
        return f"{url} answered {answer.status}, its certificate is the installation's"


if __name__ == "__main__":
    sys.exit(0 if run(checks(os.environ), PATIENCE_SECONDS) else 1)
