"""Reads the keys of issuers: the cluster's own through the API server, others' at the URL that a ModelDeployment names.

Such a URL is a tenant's, so little is risked for it: nothing is sent before the server's certificate has been found
good for its name by the system's authorities, no redirect is followed, of the answer only public keys are kept, and
the owner is not told how a connection failed.
"""

from __future__ import annotations

import json
import ssl
from typing import Final

import aiohttp
import structlog

from inflight_operator.api.jwks import Keys, public_keys
from inflight_operator.desired.access import CLUSTER
from inflight_operator.errors import TransientError
from inflight_operator.kube.client import Kube
from inflight_operator.observe.answers import body_of

_log: Final = structlog.get_logger(__name__)

_SECONDS: Final = 10.0
_MAX_BYTES: Final = 256 * 1024


async def read(kube: Kube, source: str) -> Keys:
    """The keys of a source (`desired.access.sources`); TransientError: not now, in words for the owner."""
    return await (of_cluster(kube) if source == CLUSTER else at(source))


async def of_cluster(kube: Kube) -> Keys:
    """Those of service accounts. Every service account may read them, unless the cluster's administrator has taken
    that away (ClusterRole system:service-account-issuer-discovery)."""
    told = await kube.read("/.well-known/openid-configuration")
    keys = await kube.read("/openid/v1/jwks")
    try:
        return Keys(public_keys(json.dumps(keys)), told["issuer"])
    except (KeyError, ValueError) as error:
        raise TransientError(f"the API server's keys of service accounts can't be used: {error}") from error


async def at(url: str, ssl_context: ssl.SSLContext | bool = True) -> Keys:
    """Those at an https URL."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session,
            session.get(url, allow_redirects=False, ssl=ssl_context) as answer,
        ):
            if answer.status != 200:
                raise TransientError(f"{url} answers {answer.status}")
            return Keys(public_keys(await body_of(answer, _MAX_BYTES)))
    except (aiohttp.ClientError, OSError) as error:  # a bad certificate is a ValueError besides
        _log.warning("keys can't be read", url=url, error=f"{type(error).__name__}: {error}")
        raise TransientError(f"{url} can't be reached, or its certificate is not good") from error
    except ValueError as error:
        raise TransientError(f"{url}: {error}") from error
