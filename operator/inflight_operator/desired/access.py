"""The issuers that a ModelDeployment's routes ask for a token of, with the keys as far as they are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from inflight_operator.api.jwks import Keys
from inflight_operator.api.names import Key
from inflight_operator.api.spec import Access
from inflight_operator.xds.model import Issuer

AUDIENCE: Final = "inflight"
CLUSTER: Final = "cluster"
"""The source of the keys of service accounts; that of others is a URL."""
_UNKNOWN: Final = Keys("")


def sources(access: Access | None) -> frozenset[str]:
    """Where the keys are that have to be read, and read again."""
    if access is None:
        return frozenset()
    cluster = [CLUSTER] if access.service_accounts else []
    return frozenset([*cluster, *([access.jwt.keys_uri] if access.jwt and access.jwt.keys_uri else [])])


def issuers(key: Key, access: Access | None, known: Callable[[str], Keys | None]) -> tuple[Issuer, ...] | None:
    """None: no token is asked for.

    Service accounts come first: Envoy takes the first issuer that a token is good for, and what it notes of the others
    before would make "may not" (403) look like "no valid token" (401).
    """
    if access is None:
        return None
    found = []
    if access.service_accounts:
        cluster = known(CLUSTER) or _UNKNOWN
        audiences = AUDIENCE, f"{AUDIENCE}/{key[0]}/{key[1]}"
        subjects = tuple(f"system:serviceaccount:{account.replace('/', ':')}" for account in access.service_accounts)
        found.append(Issuer(cluster.issuer or CLUSTER, audiences, cluster.keys, subjects))
    if (jwt := access.jwt) is not None:
        keys = jwt.keys or (known(jwt.keys_uri) or _UNKNOWN).keys
        found.append(Issuer(jwt.issuer, jwt.audiences, keys))
    return tuple(found)
