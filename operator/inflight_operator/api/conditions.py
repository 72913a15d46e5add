"""Conditions: their types, their reasons with the sentence that each means, and how they are folded into a status.

A condition's lastTransitionTime changes only when its status does (API conventions), so an equal world gives an
equal status and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Type(StrEnum):
    """The condition types, in the order in which a person wants to read them."""

    READY = "Ready"
    AVAILABLE = "Available"
    PROGRESSING = "Progressing"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    ACCEPTED = "Accepted"
    SCALING_ACTIVE = "ScalingActive"


class Reason(StrEnum):
    """Our own reasons. A model's failure brings its own (FetchFailed, DigestMismatch, CrashLoopBackOff, ...)."""

    VALID = "Valid"
    """The spec is understood."""
    INVALID_SPEC = "InvalidSpec"
    """A field has to be edited; the message names it."""
    CONFLICT = "Conflict"
    """An object with a name that we need belongs to somebody else."""
    REFUSED = "Refused"
    """The API server or a policy of the cluster does not take an object; its words are in the message."""
    ENDPOINTS_READY = "EndpointsReady"
    """At least one variant answers."""
    NO_READY_ENDPOINT = "NoReadyEndpoint"
    """No pod is ready, or none of a variant that should have traffic."""
    STARTING = "Starting"
    """A variant's first pods are on their way."""
    ROLLING_OUT = "RollingOut"
    """A new revision is being made big enough to take the weight."""
    SHIFTING_TRAFFIC = "ShiftingTraffic"
    """Weights move as the capacity behind them grows."""
    DRAINING = "Draining"
    """The routers have the new weights; an old revision finishes its requests."""
    ROUTING = "Routing"
    """Not every router has acknowledged the routes yet."""
    ROUTE_REJECTED = "RouteRejected"
    """A router refused the routes; the last good ones stay in force."""
    ROUTE_CONFLICT = "RouteConflict"
    """Another ModelDeployment has a host that this one asks for, and keeps it."""
    KEYS_MISSING = "KeysMissing"
    """The keys of an issuer could not be read yet, so its tokens are refused."""
    COMPLETE = "Complete"
    """Everything asked for is in effect."""
    UNBLOCKED = "Unblocked"
    """Nothing stands in the way."""
    FAILED = "Failed"
    """A revision can't start; what served before still serves."""
    HPA_ACTIVE = "ValidMetricFound"
    """Every HPA computes replicas from the in-flight metric."""
    HPA_INACTIVE = "ScalingInactive"
    """An HPA can't compute; its own words are in the message."""
    HPA_UNKNOWN = "Unknown"
    """An HPA has not looked yet, or there is no load data to scale by."""
    OPERATOR_SCALES = "OperatorScales"
    """The operator follows the in-flight requests itself, by the HPA's rules."""


@dataclass(frozen=True)
class Condition:
    """One observation. `status` is True, False, or None for Unknown."""

    type: Type
    status: bool | None
    reason: str
    message: str


def labels(resource: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(type, status, reason) of a ModelDeployment's conditions, as labels of a metric.

    Reasons are ours alone: a model's failure brings words that a tenant can choose, and each would be another series.
    """
    for item in (resource.get("status") or {}).get("conditions") or []:
        reason = item["reason"] if item["reason"] in list(Reason) else Reason.FAILED
        yield item["type"], item["status"], str(reason)


def fold(
    old: Iterable[Mapping[str, Any]], new: Iterable[Condition], generation: int, stamp: str
) -> list[dict[str, Any]]:
    """The conditions as they stand in a status; `stamp` is now, RFC 3339. What isn't told anew stays as it was."""
    before = {item["type"]: item for item in old}
    words = {True: "True", False: "False", None: "Unknown"}
    folded = []
    for condition in new:
        known = before.get(condition.type, {})
        same = known.get("status") == words[condition.status]
        folded.append(
            {
                "type": str(condition.type),
                "status": words[condition.status],
                "reason": str(condition.reason),
                "message": condition.message,
                "observedGeneration": generation,
                "lastTransitionTime": known.get("lastTransitionTime", stamp) if same else stamp,
            }
        )
    told = {item["type"] for item in folded}
    return folded + [dict(item) for kind, item in before.items() if kind not in told]
