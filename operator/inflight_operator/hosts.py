"""Which ModelDeployment answers for which of the host names that users ask for (`spec.traffic.hosts`)."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from inflight_operator.api.names import Key
from inflight_operator.api.traffic import hosts_of
from inflight_operator.api.world import Object
from inflight_operator.decide.hosts import Claim, allowed, owner
from inflight_operator.errors import SpecError


@dataclass(frozen=True)
class Grant:
    """The hosts that a ModelDeployment answers for, and those that it asked for and somebody else has, or (None) nobody
    may have."""

    hosts: tuple[str, ...] = ()
    refused: tuple[tuple[str, Key | None], ...] = ()


class Hosts:
    """Every claim that is known. `wake`: look at this ModelDeployment again; `domains`: see `decide.hosts.allowed`."""

    def __init__(self, wake: Callable[[Key], None], domains: Sequence[str]) -> None:
        self._wake = wake
        self._domains = domains
        self._claims: dict[str, dict[Key, Claim]] = defaultdict(dict)
        self._asked: dict[Key, tuple[str, ...]] = {}
        self._routed: dict[str, Key] = {}
        """Who is being routed to: a host goes over only when the one who had it has lost it."""

    def prime(self, resources: Iterable[Object]) -> None:
        """All claims, before any is decided: else the first one to be looked at would have no rival."""
        for resource in resources:
            self._claim(resource, told=(resource.get("status") or {}).get("hosts") or [])

    def step(self, resource: Object) -> Grant:
        """What is granted now. The routes have to follow before anything else is decided: nothing may wait between."""
        key = self._claim(resource)
        asked = self._asked[key]
        owners = {host: owner(self._claims[host].values()) for host in asked if self._allowed(host, key)}
        mine = [host for host, who in owners.items() if who == key and self._routed.get(host, key) == key]
        for host in [host for host, who in self._routed.items() if who == key and host not in mine]:
            self._release(host)
        self._routed.update(dict.fromkeys(mine, key))
        for host in mine:
            self._claims[host][key] = Claim(key, True, self._claims[host][key].created)
        others = [(host, owners.get(host)) for host in asked if owners.get(host) != key]
        return Grant(tuple(mine), tuple(others))

    def forget(self, key: Key) -> None:
        """The ModelDeployment is gone, and its routes are."""
        self._ask(key, ())
        del self._asked[key]
        for host in [host for host, who in self._routed.items() if who == key]:
            self._release(host)

    def _allowed(self, host: str, key: Key) -> bool:
        return allowed(host, key[0], self._domains)

    def _claim(self, resource: Object, told: Sequence[str] = ()) -> Key:
        """`told` are those that its status says it had: to be believed only where nothing else is known yet."""
        metadata = resource["metadata"]
        key = metadata["namespace"], metadata["name"]
        asked: tuple[str, ...] = ()
        with contextlib.suppress(SpecError):
            asked = hosts_of(resource["spec"])
        self._ask(key, asked)
        for host in asked:
            if not self._allowed(host, key):
                continue  # what nobody may have keeps nobody from it
            before = self._claims[host].get(key)
            had = before.had if before else host in told
            self._claims[host][key] = Claim(key, had, metadata.get("creationTimestamp") or "")
        return key

    def _ask(self, key: Key, hosts: tuple[str, ...]) -> None:
        """Withdraw the claims to all but these."""
        for host in set(self._asked.get(key, ())) - set(hosts):
            self._claims[host].pop(key, None)
            self._tell(host)
            if not self._claims[host]:
                del self._claims[host]
        self._asked[key] = hosts

    def _release(self, host: str) -> None:
        del self._routed[host]
        self._tell(host)

    def _tell(self, host: str) -> None:
        """Somebody else may have it now."""
        for key in self._claims.get(host, {}):
            self._wake(key)
