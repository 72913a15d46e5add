"""What a person is told: the conditions, computed from facts and from nothing else.

    Ready = Accepted and Available and nothing failed and every weight in force and acknowledged by the routers

Available stays True while old revisions serve, whatever a rollout does; ScalingActive is not part of Ready, for a
quiet variant is healthy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inflight_operator.api.conditions import Condition, Reason, Type
from inflight_operator.api.world import Failure


@dataclass(frozen=True)
class VariantFacts:
    """One variant. `ready` and `replicas` are the serving revision's, `target_ready` of `needed` the new one's."""

    name: str
    weight: int
    effective: int
    serving: str
    target: str
    replicas: int
    ready: int
    target_ready: int
    needed: int
    failure: Failure | None


@dataclass(frozen=True)
class Scaling:
    """How one revision is scaled: what its HPA says of itself (its ScalingActive condition; None: it has not looked
    yet), or, with `by_hpa` false, whether the operator knows the demand that it follows itself (None: it doesn't), and
    in `message` why there is no HPA."""

    name: str
    active: bool | None
    message: str
    by_hpa: bool = True


@dataclass(frozen=True)
class Facts:
    """Everything that the conditions depend on."""

    variants: Sequence[VariantFacts]
    acknowledged: bool
    rejected: str | None
    waiting: Sequence[str]
    draining: Sequence[str]
    scaling: Sequence[Scaling]
    kept: int = 0
    """Endpoints that requests go to: where no pod is ready, those that were."""
    missing_keys: Sequence[str] = ()
    """Why the keys that tokens are checked by aren't known, where they aren't."""
    holding: bool = False
    """Weights stay as they are because the demand isn't known."""
    conflicts: Sequence[str] = ()
    """Hosts that somebody else has, and who, as far as the owner may know."""


def refused(reason: Reason, message: str) -> tuple[Condition, ...]:
    """The conditions of a ModelDeployment that can't be acted on until somebody edits something."""
    return (
        Condition(Type.READY, False, reason, message),
        Condition(Type.PROGRESSING, False, Reason.FAILED, message),
        Condition(Type.RECONCILING, False, reason, message),
        Condition(Type.STALLED, True, reason, message),
        Condition(Type.ACCEPTED, reason is not Reason.INVALID_SPEC, reason, message),
    )


def decide(facts: Facts) -> tuple[Condition, ...]:
    """Every condition, in reading order."""
    progress = _progress(facts)
    available = _available(facts)
    failure = next((v for v in facts.variants if v.failure), None)
    busy = progress.status is True
    stalled = failure is not None or facts.rejected is not None or (bool(facts.conflicts) and not busy)
    return (
        _ready(facts, available, progress, failure),
        available,
        progress,
        Condition(Type.RECONCILING, busy, progress.reason, progress.message),
        _stalled(progress, stalled=stalled),
        Condition(Type.ACCEPTED, True, Reason.VALID, "The spec is understood."),
        _scaling(facts.scaling),
    )


def _stalled(progress: Condition, *, stalled: bool) -> Condition:
    """The kstatus word for "it will not get further unless somebody edits something"."""
    if stalled:
        return Condition(Type.STALLED, True, progress.reason, progress.message)
    return Condition(Type.STALLED, False, Reason.UNBLOCKED, "Nothing blocks it.")


def _available(facts: Facts) -> Condition:
    serving = [v for v in facts.variants if v.ready]
    if not serving:
        text = "No pod of any variant is ready."
        if facts.kept:
            text += f" Requests still go to {facts.kept} that were, in case they answer."
        return Condition(Type.AVAILABLE, False, Reason.NO_READY_ENDPOINT, text)
    told = ", ".join(f"{v.name} {v.ready}" for v in serving)
    return Condition(Type.AVAILABLE, True, Reason.ENDPOINTS_READY, f"Ready pods: {told}.")


def _progress(facts: Facts) -> Condition:
    """The first thing that keeps the spec from being in effect; the order is the order of a rollout."""
    for v in facts.variants:
        if v.failure:
            text = f"{v.name} {v.target}: {v.failure.reason}: {v.failure.message}"
            return Condition(Type.PROGRESSING, False, Reason.FAILED, text)
    if facts.rejected is not None:
        return Condition(Type.PROGRESSING, False, Reason.ROUTE_REJECTED, facts.rejected)
    for reason, message in _steps(facts):
        return Condition(Type.PROGRESSING, True, reason, message)
    if facts.conflicts:
        text = f"Requests for {'; '.join(facts.conflicts)}. All else is answered."
        return Condition(Type.PROGRESSING, False, Reason.ROUTE_CONFLICT, text)
    return Condition(Type.PROGRESSING, False, Reason.COMPLETE, "Everything asked for is in effect.")


def _steps(facts: Facts) -> list[tuple[Reason, str]]:
    steps: list[tuple[Reason, str]] = []
    for v in facts.variants:
        if v.target != v.serving:
            text = f"{v.name}: {v.target} has {v.target_ready} of {v.needed} pods it needs; {v.serving} serves."
            steps.append((Reason.ROLLING_OUT, text))
    for v in facts.variants:
        if not v.ready:
            steps.append((Reason.STARTING, f"{v.name}: no pod of {v.serving} is ready yet."))
    if facts.waiting:
        steps.append((Reason.SHIFTING_TRAFFIC, f"Weight moves as replicas grow: {', '.join(facts.waiting)}."))
    if facts.holding:
        steps.append((Reason.SHIFTING_TRAFFIC, "Weight stays where it is for a few seconds: the demand isn't known."))
    if not facts.acknowledged:
        steps.append((Reason.ROUTING, "Not every router has acknowledged the routes yet."))
    if facts.missing_keys:
        steps.append((Reason.KEYS_MISSING, f"Tokens can't be checked yet: {'; '.join(facts.missing_keys)}."))
    if facts.draining:
        steps.append((Reason.DRAINING, f"Old revisions finish their requests: {', '.join(facts.draining)}."))
    return steps


def _ready(facts: Facts, available: Condition, progress: Condition, failure: VariantFacts | None) -> Condition:
    if failure is not None and failure.failure is not None:
        text = f"variant {failure.name}, revision {failure.target}: {failure.failure.message}"
        if available.status:
            text += f" (still serving: {', '.join(f'{v.name} {v.serving}' for v in facts.variants if v.ready)})"
        return Condition(Type.READY, False, failure.failure.reason, text)
    if not available.status:
        return Condition(Type.READY, False, available.reason, available.message)
    # Draining is bookkeeping: the weights are in force already.
    busy = progress.status and progress.reason != Reason.DRAINING
    if busy or facts.rejected is not None or facts.conflicts:
        return Condition(Type.READY, False, progress.reason, progress.message)
    told = ", ".join(f"{v.name} {v.ready}/{v.replicas} at {v.effective} %" for v in facts.variants)
    return Condition(Type.READY, True, Reason.COMPLETE, f"{told}.")


def _scaling(scaling: Sequence[Scaling]) -> Condition:
    for one in scaling:
        if one.active is False:
            return Condition(Type.SCALING_ACTIVE, False, Reason.HPA_INACTIVE, f"{one.name}: {one.message}")
    unknown = [one.name for one in scaling if one.active is None]
    if not all(one.by_hpa for one in scaling):
        return _scaling_of_operator(unknown, scaling[0].message)
    if unknown or not scaling:
        return Condition(
            Type.SCALING_ACTIVE, None, Reason.HPA_UNKNOWN, f"Not looked at yet: {', '.join(unknown) or 'no HPA'}."
        )
    return Condition(Type.SCALING_ACTIVE, True, Reason.HPA_ACTIVE, "Every HPA follows the in-flight metric.")


def _scaling_of_operator(unknown: Sequence[str], why: str) -> Condition:
    if unknown:
        text = f"No load data, so replicas are held: {', '.join(unknown)}."
        return Condition(Type.SCALING_ACTIVE, None, Reason.HPA_UNKNOWN, text)
    text = f"The operator itself sets the replicas, from the requests in flight; there is no HPA ({why})."
    return Condition(Type.SCALING_ACTIVE, True, Reason.OPERATOR_SCALES, text)
