"""One router's subscription to one type of resource (clusters, endpoints or listeners): the delta protocol.

Pure. At most one response is on its way per type, so changes coalesce while a router is busy. A refused
response of several resources is sent again in halves until the one that is refused stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from .wire import Resource

T = TypeVar("T")


class Request(Protocol):
    """The part of a DeltaDiscoveryRequest that is about a subscription."""

    @property
    def resource_names_subscribe(self) -> Collection[str]: ...
    @property
    def resource_names_unsubscribe(self) -> Collection[str]: ...
    @property
    def initial_resource_versions(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """What one response says: resources that are new or changed, and names that are gone."""

    resources: list[Resource]
    removed: list[str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The one resource that a router refused."""

    name: str
    version: str


def halves(items: Collection[T]) -> list[set[T]]:
    """Two sets that together are `items`; the same ones in every run."""
    ordered = sorted(items)  # type: ignore[type-var]
    middle = len(ordered) // 2
    return [set(ordered[:middle]), set(ordered[middle:])]


class Subscription:
    """State of one type on one stream.

    `accepted` is what the router has, by name and version; `_dirty` the names to look at before it has all that
    is wanted; `_waits` the names that it waits to hear of; `_again` those to be sent although it has them.
    """

    def __init__(self, *, wildcard: bool, removes: bool) -> None:
        self.accepted: dict[str, str] = {}
        self.flight: Batch | None = None
        self._may_be_wildcard = wildcard
        self._removes = removes
        self._started = False
        self._all = False
        self._owes_answer = False
        self._names: set[str] = set()
        self._waits: set[str] = set()
        self._dirty: set[str] = set()
        self._again: set[str] = set()
        self._suspects: list[set[str]] = []

    def ask(self, request: Request, wanted: Mapping[str, Resource]) -> None:
        """The router subscribes; the first time it says what it has from an earlier stream."""
        subscribe = set(request.resource_names_subscribe)
        if not self._started:
            self._started = True
            self._all = "*" in subscribe or (self._may_be_wildcard and not subscribe)
            # Envoy's start waits for the first answer to a wildcard, even if it is empty.
            self._owes_answer = self._all
            self.accepted = dict(request.initial_resource_versions)
            self._dirty = set(self.accepted) | (set(wanted) if self._all else set())
        else:  # asked for again: to be sent again, whatever was sent before
            for name in subscribe:
                self.accepted.pop(name, None)
        subscribe.discard("*")
        self._names |= subscribe
        self._waits |= subscribe - self.accepted.keys()
        self._dirty |= subscribe
        for name in request.resource_names_unsubscribe:
            self._names.discard(name)
            self._waits.discard(name)
            self._dirty.discard(name)
            self._again.discard(name)
            self.accepted.pop(name, None)

    def subscribes(self, name: str) -> bool:
        return self._all or name in self._names

    def has(self, name: str) -> bool:
        """Whether the router has it and is not just being told that it is gone."""
        return name in self.accepted and not (self.flight and name in self.flight.removed)

    @property
    def behind(self) -> bool:
        """Whether there is something to send that waits for the answer to what is on its way."""
        return self.flight is not None and bool(self._dirty)

    def mark(self, names: Collection[str]) -> None:
        """These resources may have changed."""
        self._dirty.update(name for name in names if self.subscribes(name) or name in self.accepted)

    def resend(self, names: Collection[str]) -> None:
        """Send these again although the router may have them, if it subscribes to them (or will, on a new stream,
        saying that it has them)."""
        again = self._names.intersection(names) if self._started else set(names)
        self._again |= again
        self._waits |= again
        self._dirty |= again & self._names

    def next(
        self,
        wanted: Mapping[str, Resource],
        usable: Callable[[Resource], Resource | None],
        needed: Callable[[], Collection[str]],
    ) -> Batch | None:
        """What to send now, if anything: nothing while a response is on its way.

        `usable` gives for a wanted resource the one to send: itself, or an earlier one when it has been refused,
        or None. `needed` gives names that are not to be removed yet.
        """
        if self.flight is not None or not self._started or not (self._dirty or self._owes_answer):
            return None
        while True:
            scope = sorted(self._dirty & self._suspects[0] if self._suspects else self._dirty)
            batch = self._batch(scope, wanted, usable, needed)
            if batch.resources or batch.removed or not self._suspects:
                break
            self._suspects.pop(0)
        if not (batch.resources or batch.removed or self._owes_answer):
            return None
        self._owes_answer = False
        sent = {r.name for r in batch.resources}
        self._dirty -= sent
        self._again -= sent
        self._dirty.difference_update(batch.removed)
        self._waits.difference_update(sent, batch.removed)
        self.flight = batch
        return batch

    def accept(self) -> Batch:
        """The router has accepted what was on its way."""
        batch, self.flight = self.flight, None
        assert batch is not None  # noqa: S101  the session calls this for the nonce of a flight only
        self.accepted.update((r.name, r.version) for r in batch.resources)
        for name in batch.removed:
            self.accepted.pop(name, None)
        return batch

    def refuse(self) -> Refusal | None:
        """The router has refused what was on its way; the culprit, if it is known now."""
        batch, self.flight = self.flight, None
        assert batch is not None  # noqa: S101
        names = {r.name for r in batch.resources}
        self._dirty |= names | set(batch.removed)
        # What it had is not taken for granted: a changed cluster may have dropped its endpoints with the refusal.
        self._again |= names
        if self._suspects:
            self._suspects.pop(0)
        if len(names) == 1:
            return Refusal(batch.resources[0].name, batch.resources[0].version)
        if names:
            self._suspects[:0] = halves(names)
        return None

    def _batch(
        self,
        scope: Collection[str],
        wanted: Mapping[str, Resource],
        usable: Callable[[Resource], Resource | None],
        needed: Callable[[], Collection[str]],
    ) -> Batch:
        """What there is to say about these names; those that need nothing are no longer dirty."""
        batch = Batch([], [])
        had = []
        for name in scope:
            resource = usable(wanted[name]) if name in wanted else None
            if resource is not None and self._lacks(resource):
                batch.resources.append(resource)
            elif resource is None and name in self._waits:
                batch.removed.append(name)  # it waits for an answer: there is none
            elif resource is None and name not in wanted and self._removes and name in self.accepted:
                had.append(name)
            else:
                self._dirty.discard(name)
        keep = needed() if had else ()
        batch.removed.extend(name for name in had if name not in keep)
        return batch

    def _lacks(self, resource: Resource) -> bool:
        return self.accepted.get(resource.name) != resource.version or resource.name in self._again
