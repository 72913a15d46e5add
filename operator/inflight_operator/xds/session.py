"""One router's conversation: what it has asked for, has been sent, has accepted and has refused.

Pure: messages in, bytes out; `ads` does the waiting and sending. The order that keeps traffic whole:

    clusters and their endpoints first; routes only to clusters whose endpoints the router has accepted;
    a cluster is taken away only when no accepted route leads to it any more.

Changed routes go to the route configuration TRIAL first, which no connection reaches. Only what the router has
accepted there is merged into MAIN, so that a bad ModelDeployment is found without touching the others: when
the router refuses a trial of several, halves of it are tried until one is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from envoy.service.discovery.v3 import discovery_pb2

from . import build
from .build import MAIN, TRIAL, Key, Routes
from .subscription import Subscription, halves
from .wire import CLUSTER, ENDPOINTS, LISTENER, ROUTES, response
from .world import Change, Verdicts, World


@dataclass(slots=True)
class Flight:
    """A response that the router has not answered yet, by route configuration name."""

    name: str
    version: str
    routes: dict[Key, Routes]


@dataclass(slots=True)
class RouteState:
    """The two route configurations of one router."""

    subscribed: set[str] = field(default_factory=set)
    main: dict[Key, Routes] = field(default_factory=dict)
    accepted: dict[Key, Routes] | None = None
    """What it serves; None: not known (a router that has just come)."""
    accepted_version: str | None = None
    unmerged: set[Key] = field(default_factory=set)
    trials: list[set[Key]] = field(default_factory=list)
    tried: bool = False
    flights: dict[str, Flight] = field(default_factory=dict)

    def flying(self, name: str) -> bool:
        return any(flight.name == name for flight in self.flights.values())
