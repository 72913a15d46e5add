"""Decide who may ask, and hand the routes what tokens are checked by."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inflight_operator.api.names import Key
from inflight_operator.api.spec import Access as Asked
from inflight_operator.api.spec import access_of
from inflight_operator.decide import access as decision
from inflight_operator.desired import access as desired
from inflight_operator.errors import SpecError
from inflight_operator.keyring import KeyRing
from inflight_operator.xds.model import Issuer

NOBODY_NAMED: Final = Asked((), None)
PRIME_SECONDS: Final = 5.0
"""An operator that has just started waits no longer for the keys; whose are late are missing for a moment."""


@dataclass(frozen=True)
class Gate:
    """What a request has to bring (None: nothing), and why some of it can't be had by anybody now."""

    issuers: tuple[Issuer, ...] | None
    missing: Sequence[str]


class Access:
    """`closed`: so are the ModelDeployments whose owners say nothing about it."""

    def __init__(self, keyring: KeyRing, *, closed: bool) -> None:
        self._keyring = keyring
        self._closed = closed

    def step(self, key: Key, spec: Mapping[str, Any]) -> Gate:
        """Never waits: keys that aren't known yet bring the ModelDeployment here again.

        What can't be understood is closed to all but its own namespace.
        """
        try:
            asked = access_of(spec)
        except SpecError:
            asked = NOBODY_NAMED
        allowed = decision.decide(key[0], asked, closed=self._closed)
        sources = desired.sources(allowed)
        self._keyring.need(key, sources)
        return Gate(desired.issuers(key, allowed, self._keyring.known), self._keyring.missing(sources))

    async def prime(self, specs: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Read what these need, as (namespace, spec): a restart would otherwise lock everybody out for a moment."""
        sources: set[str] = set()
        for namespace, spec in specs:
            with contextlib.suppress(SpecError):
                allowed = decision.decide(namespace, access_of(spec), closed=self._closed)
                sources |= desired.sources(allowed)
        await self._keyring.prime(sources, PRIME_SECONDS)

    def forget(self, key: Key) -> None:
        """The ModelDeployment is gone."""
        self._keyring.need(key, frozenset())
