"""What one reconcile sees: a ModelDeployment and everything that belongs to it, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inflight_operator.api import names
from inflight_operator.api.names import Key

Object = dict[str, Any]
"""A Kubernetes object as JSON, without managedFields."""
Address = tuple[str, int, str]
"""(ip, port, zone) of a pod; the zone is empty where its node has none."""


@dataclass(frozen=True)
class Failure:
    """Why a revision's pods don't become ready: a CamelCase reason and a sentence for people."""

    reason: str
    message: str


@dataclass(frozen=True)
class Revision:
    """One revision as it is in the cluster.

    `record` is its ControllerRevision's data {model, server, template}: None until it is written. `endpoints` are
    the addresses that are ready now, `unready` those that are there and aren't, `pods` the names of their pods by IP.
    `replicas` is the Deployment's spec.replicas, 0 without one.
    """

    name: str
    variant: str
    revision: str
    record: Mapping[str, Any] | None
    objects: Mapping[str, Object]
    endpoints: frozenset[Address]
    created: str
    unready: frozenset[Address] = frozenset()
    pods: Mapping[str, str] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """It has a Deployment (otherwise it is history)."""
        return "Deployment" in self.objects

    @property
    def present(self) -> bool:
        """Something of it is left in the cluster beside its record."""
        return bool(self.objects.keys() - {"ControllerRevision"})

    @property
    def replicas(self) -> int:
        """Replicas asked for by whoever scales it."""
        return int(self.objects["Deployment"]["spec"].get("replicas", 1)) if self.live else 0

    @property
    def digest(self) -> str | None:
        """The sha256 of the model that its first pod served, where the user gave none and a pod has been asked."""
        record = self.objects.get("ControllerRevision") or {"metadata": {}}
        found: str | None = (record["metadata"].get("annotations") or {}).get(names.DIGEST)
        return found

    @property
    def ready(self) -> int:
        """Ready endpoints, the ones that traffic can use."""
        return len(self.endpoints)


@dataclass(frozen=True)
class World:
    """A ModelDeployment, its revisions (live and history) by name, and its own Service."""

    key: Key
    resource: Object
    revisions: Mapping[str, Revision]
    alias: Object | None

    @property
    def told(self) -> Mapping[str, Mapping[str, Any]]:
        """What the status said of each variant last: it survives a restart. An entry that lacks something is none."""
        variants = (self.resource.get("status") or {}).get("variants") or []
        return {v["name"]: v for v in variants if {"revision", "weight", "effectiveWeight"} <= v.keys()}

    @property
    def places(self) -> tuple[tuple[str, str, int], ...]:
        """The places of sticky users as they were last: whose, who answered there, how many side by side."""
        runs = (self.resource.get("status") or {}).get("sticky") or []
        return tuple((run["variant"], run.get("answeredBy", run["variant"]), run["places"]) for run in runs)

    def of(self, variant: str) -> tuple[Revision, ...]:
        """The live revisions of a variant."""
        return tuple(r for r in self.revisions.values() if r.variant == variant and r.live)
