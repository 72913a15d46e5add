"""Whose a host name is that several ModelDeployments ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inflight_operator.api.names import Key


@dataclass(frozen=True)
class Claim:
    """One ModelDeployment asks for a host. `had`: it was granted it before; `created` as Kubernetes writes times."""

    key: Key
    had: bool
    created: str


def allowed(host: str, namespace: str, domains: Iterable[str]) -> bool:
    """Whether a namespace may have a host: below a domain that is for all, `ml.example`, or for that namespace alone,
    `team-a=a.ml.example`. The domain itself is nobody's: it may well be the routers' own name."""
    for domain in domains:
        who, only, below = domain.rpartition("=")
        if host.endswith(f".{below}") and (not only or who == namespace):
            return True
    return False


def owner(claims: Iterable[Claim]) -> Key | None:
    """Who has it keeps it, else it is the oldest ModelDeployment's, as Gateway API decides between routes; None without
    claims.

    That one who has it keeps it is ours: whoever edits an old object could otherwise take the traffic of a newer one.
    """
    first = min(claims, key=lambda claim: (not claim.had, claim.created, claim.key), default=None)
    return first.key if first else None
