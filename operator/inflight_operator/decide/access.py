"""Who may ask a ModelDeployment: what its owner says, and what the installation says where the owner says nothing."""

from __future__ import annotations

from inflight_operator.api.spec import Access


def decide(namespace: str, asked: Access | None, *, closed: bool) -> Access | None:
    """None: everybody.

    | `spec.traffic.access`          | installation open | installation closed |
    |--------------------------------|-------------------|---------------------|
    | not set                        | everybody         | its own namespace   |
    | set, and names nobody          | its own namespace | its own namespace   |
    | names accounts, an issuer, both| who is named      | who is named        |
    """
    if asked is None and not closed:
        return None
    if asked is None or (not asked.service_accounts and asked.jwt is None):
        return Access((f"{namespace}/*",), None)
    return asked
