"""The demand that the metrics API tells the HPAs, computed when asked from what the routers reported last.

Keyed by Deployment, because that is the object an HPA names. None means "no data": the API answers 404 and the HPA
holds its replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from inflight_operator import telemetry
from inflight_operator.api.names import Key
from inflight_operator.decide import demand
from inflight_operator.telemetry import DEMAND
from inflight_operator.xds.settled import WINDOWS

InFlight = Callable[[str, str], float | None]
"""(namespace, revision name) → in-flight requests as `xds.load` has them, None if unknown."""

SETTLE_SECONDS: Final = WINDOWS[0] + 1.0
"""A revision that has just taken weight is not judged before the shortest window is full of what it got, and told."""


@dataclass(frozen=True)
class Serving:
    """Who serves a ModelDeployment: revision name by variant, the weights being moved to, and since when by variant."""

    revisions: Mapping[str, str]
    goal: Mapping[str, int]
    effective: Mapping[str, int]
    since: Mapping[str, float]


class Signal:
    """Answers "how many in-flight requests should this Deployment's HPA act on?"."""

    def __init__(self, in_flight: InFlight, clock: Callable[[], float]) -> None:
        self._in_flight = in_flight
        self._clock = clock
        self._serving: dict[Key, Serving] = {}
        self._owner: dict[tuple[str, str], tuple[Key, str]] = {}

    def serve(
        self, key: Key, revisions: Mapping[str, str], goal: Mapping[str, int], effective: Mapping[str, int]
    ) -> None:
        """Take note of who serves `key` now, with which weights, on the way to which."""
        before, now = self._serving.get(key), self._clock()
        if before and (before.revisions, before.goal, before.effective) == (revisions, goal, effective):
            return
        since = {}
        for variant, name in revisions.items():
            known = before.revisions.get(variant) if before else None
            since[variant] = before.since[variant] if before and known == name else now if known else 0.0
        self._drop(key)
        for variant in (before.revisions.keys() if before else set()) - revisions.keys():
            telemetry.forget(*key, variant)
        self._serving[key] = Serving(dict(revisions), dict(goal), dict(effective), since)
        for variant, name in revisions.items():
            self._owner[(key[0], name)] = (key, variant)

    def forget(self, key: Key) -> None:
        """The ModelDeployment is gone."""
        for variant in self._drop(key):
            telemetry.forget(*key, variant)

    def _drop(self, key: Key) -> list[str]:
        serving = self._serving.pop(key, None)
        for name in serving.revisions.values() if serving else ():
            self._owner.pop((key[0], name), None)
        return [*serving.revisions] if serving else []

    def measured(self, key: Key) -> dict[str, float | None]:
        """In-flight requests by variant."""
        serving = self._serving.get(key)
        return {v: self._in_flight(key[0], name) for v, name in serving.revisions.items()} if serving else {}

    def of_revision(self, namespace: str, name: str) -> float | None:
        """In-flight requests of one revision, serving or not."""
        return self._in_flight(namespace, name)

    def ahead(self, key: Key, variant: str) -> float | None:
        """In-flight requests that a variant has to be ready for before it gets more weight; None: it gains none, or
        nothing is known."""
        serving = self._serving.get(key)
        if serving is None or serving.goal.get(variant, 0) <= serving.effective.get(variant, 0):
            return None
        return demand.decide(self.measured(key), serving.goal, serving.effective).get(variant)

    def demand(self, namespace: str, deployment: str) -> float | None:
        """In-flight requests that the Deployment's HPA should act on; None: no data, hold."""
        found = self._owner.get((namespace, deployment))
        if found is None:
            return None
        key, variant = found
        serving = self._serving[key]
        if self._clock() - serving.since[variant] < SETTLE_SECONDS and serving.since[variant]:
            return None
        told = demand.decide(self.measured(key), serving.goal, serving.effective)[variant]
        if told is not None:
            DEMAND.labels(namespace=namespace, name=key[1], variant=variant).set(told)
        return told
