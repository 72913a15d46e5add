"""The route configurations of one router: which routes are tried, merged, accepted.

Pure. Changed routes go to TRIAL first, which no connection reaches. Only what the router has accepted there
is merged into MAIN, so that a bad ModelDeployment is found without touching the others: when the router
refuses a trial of several, halves of it are tried until one is left. A router whose routes aren't known (it has
just come, or the operator has) gets MAIN only when all are decided: it never loses routes on the way.

Envoy takes any refused route configuration for the first answer to all it waits for, and would listen without
routes: so it is told of the listener that wants MAIN only when all are `decided`, and is sent MAIN next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from .build import MAIN, TRIAL, Key, Routes, routes_version
from .subscription import Request, halves
from .wire import Resource
from .world import Verdicts, World

log = logging.getLogger(__name__)

EMPTY_TRIAL_ABOVE = 16
"""A trial of more than this is taken back when it is over, for the router's memory."""


@dataclass(frozen=True, slots=True)
class Flight:
    """A route configuration that is on its way, and what it is made of."""

    name: str
    version: str
    routes: Mapping[Key, Routes]


class RouteBook:
    """State of the two route configurations on one stream."""

    def __init__(self, world: World, wanted: Mapping[Key, Routes], verdicts: Verdicts) -> None:
        self.accepted: Mapping[Key, Routes] | None = None
        self.decided = False
        """Whether MAIN can be sent: what the router serves is known, or all that it is to serve has been tried."""
        self._world = world
        self._wanted = wanted
        self._verdicts = verdicts
        self._subscribed: set[str] = set()
        self._flights: dict[str, Flight] = {}
        self._unmerged: set[Key] = set(wanted)
        self._main: dict[Key, Routes] = {}
        self._main_changed = True
        self._main_version: str | None = None
        self._suspects: list[set[Key]] = []
        self._tried: int | None = None

    def ask(self, request: Request) -> None:
        """The router subscribes; the first time it says what it has from an earlier stream."""
        for name in request.resource_names_subscribe:
            if name == MAIN:
                self._main_version, self._main_changed = None, True
            elif name == TRIAL:
                self._tried = None
            self._subscribed.add(name)
        self._subscribed.difference_update(request.resource_names_unsubscribe)
        if TRIAL in request.initial_resource_versions:
            self._tried = 0
        if version := request.initial_resource_versions.get(MAIN):
            self._recognise(version)

    def _recognise(self, version: str) -> None:
        """A router that has been here before has what is wanted, or what had passed, or something unknown."""
        for routes in (self._wanted, self._verdicts.passed):
            if routes_version(routes) == version:
                self.accepted, self._main, self._main_version = dict(routes), dict(routes), version
                self._verdicts.passed.update(routes)
                self._unmerged = set()
                self.mark(self._wanted.keys() | routes.keys())
                return

    def mark(self, keys: Collection[Key]) -> None:
        """The wanted routes of these have changed. Of the same version they have only other weights: those go along
        with the next change."""
        for key in keys:
            wanted, merged = self._wanted.get(key), self._main.get(key)
            if wanted and merged and wanted.version == merged.version:
                self._main[key] = wanted
                self._unmerged.discard(key)
            else:
                self._unmerged.add(key)

    def next(
        self, ready: Callable[[Key, Routes], bool], hopeless: Callable[[Key], bool]
    ) -> list[tuple[Resource, Flight]]:
        """What to send now. `ready` tells whether these routes may be merged, `hopeless` whether
        something that a ModelDeployment needs has been refused."""
        self._merge(ready)
        undecided = {key for key in self._unmerged if not hopeless(key)}
        self.decided = self.decided or self.accepted is not None or not undecided
        return [
            (self._world.joined(flight.name, flight.version, flight.routes), flight)
            for flight in (self._trial(undecided), self._merged())
            if flight
        ]

    def sent(self, nonce: str, flight: Flight) -> None:
        self._flights[nonce] = flight

    def accept(self, nonce: str) -> None:
        flight = self._flights.pop(nonce, None)
        if flight is None:
            return
        if flight.name == MAIN:
            self.accepted, self._main_version = flight.routes, flight.version
            return
        for key, routes in flight.routes.items():
            if key in self._wanted:
                self._verdicts.passed[key] = routes

    def refuse(self, nonce: str, words: str) -> None:
        flight = self._flights.pop(nonce, None)
        if flight is None:
            return
        if flight.name == MAIN:
            self._blame_changed(flight, words)
            return
        if self._suspects:
            self._suspects.pop(0)
        if len(flight.routes) > 1:
            self._suspects[:0] = halves(flight.routes)
        for key, routes in flight.routes.items() if len(flight.routes) == 1 else ():
            self._verdicts.refused_routes[key] = (routes.version, words)

    @property
    def told(self) -> bool:
        """Whether the router has routes of ours, or they are on their way."""
        return self.accepted is not None or self._flying(MAIN)

    def serving(self, key: Key) -> set[str]:
        """Versions of this ModelDeployment's routes that the router may have, now or soon."""
        books = [flight.routes for flight in self._flights.values() if flight.name == MAIN]
        return {book[key].version for book in (self.accepted or {}, self._main, *books) if key in book}

    def referred(self) -> Collection[str] | None:
        """Clusters that routes lead to, now or soon; None when what the router serves isn't known."""
        if self.accepted is None:
            return None
        return {name for book in (self.accepted, self._main) for r in book.values() for name in r.clusters}

    def _merge(self, ready: Callable[[Key, Routes], bool]) -> None:
        """Take into MAIN what has passed and whose clusters are there, and what is left of what was refused; again for
        those that waited for a host of another one, so that it goes over in one step."""
        left = -1
        while left != len(self._unmerged):
            left = len(self._unmerged)
            self._merge_what_can(ready)

    def _merge_what_can(self, ready: Callable[[Key, Routes], bool]) -> None:
        for key in list(self._unmerged):
            wanted = self._wanted.get(key)
            passed = self._verdicts.passed.get(key)
            if wanted is None:
                target = None
            elif self._verdicts.has_passed(key, wanted):
                target = wanted
            elif self._verdicts.refuses_routes(key, wanted):
                target = passed
            else:
                continue  # its trial is still to come
            if target is None:
                self._main_changed |= self._main.pop(key, None) is not None
            elif ready(key, target) and not self._elsewhere(key, target.hosts):
                self._main[key] = target
                self._main_changed = True
            else:
                continue
            self._unmerged.discard(key)

    def _elsewhere(self, key: Key, hosts: frozenset[str]) -> bool:
        """Whether one of these hosts is still among another one's routes: Envoy would refuse all of them."""
        return bool(hosts) and any(hosts & routes.hosts for other, routes in self._main.items() if other != key)

    def _trial(self, undecided: set[Key]) -> Flight | None:
        if TRIAL not in self._subscribed or self._flying(TRIAL):
            return None
        if self._tried is not None and self.decided and self.accepted is None:
            return None  # the first MAIN comes before any refusal
        untried = {
            key: routes
            for key in undecided
            if (routes := self._wanted.get(key)) and not self._verdicts.has_passed(key, routes)
        }
        while self._suspects and not (self._suspects[0] & untried.keys()):
            self._suspects.pop(0)
        keys = self._suspects[0] & untried.keys() if self._suspects else untried.keys()
        done = self._tried is not None and (keys or self._tried <= EMPTY_TRIAL_ABOVE)
        if not keys and done:
            return None
        self._tried = len(keys)
        trial = {key: untried[key] for key in keys}
        return Flight(TRIAL, routes_version(trial), trial)

    def _merged(self) -> Flight | None:
        if MAIN not in self._subscribed or self._flying(MAIN) or not self._main_changed or not self.decided:
            return None
        self._main_changed = False
        version = routes_version(self._main)
        if version == self._main_version:
            self.accepted = dict(self._main)
            return None
        return Flight(MAIN, version, dict(self._main))

    def _flying(self, name: str) -> bool:
        return any(flight.name == name for flight in self._flights.values())

    def _blame_changed(self, flight: Flight, words: str) -> None:
        """Each part has passed alone and yet the whole is refused: undo what has changed since the last one."""
        if self.accepted is None:
            log.error("a router refuses its first routes, which it had accepted one by one: %s", words)
            return
        for key, routes in flight.routes.items():
            before = self.accepted.get(key)
            if before is not None and before.version == routes.version:
                continue
            self._verdicts.refused_routes[key] = (routes.version, words)
            self._verdicts.passed.pop(key, None)
            if before is not None:
                self._verdicts.passed[key] = before
            self._unmerged.add(key)
