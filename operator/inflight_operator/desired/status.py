"""The status, computed whole and written only when it differs from what is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from inflight_operator.api import conditions
from inflight_operator.api.conditions import Condition
from inflight_operator.api.world import Object
from inflight_operator.decide.health import VariantFacts
from inflight_operator.decide.hedging import Hedge
from inflight_operator.decide.stickiness import Run
from inflight_operator.desired import alias


def build(
    resource: Object,
    told: Iterable[Condition],
    variants: Sequence[VariantFacts],
    in_flight: Mapping[str, float | None],
    stamp: str,
    *,
    tls: bool,
    places: Iterable[Run] = (),
    hosts: Sequence[str] = (),
    hedge: Hedge | None = None,
    degraded: Sequence[str] = (),
) -> dict[str, Any]:
    """A status. `in_flight` is by variant, None when unknown; `stamp` is now, RFC 3339; `tls`: the
    routers serve HTTPS; `places` where sticky users are; `hosts` those that are its own; `hedge`
    and `degraded` what is done about slow pods."""
    metadata = resource["metadata"]
    old: Mapping[str, Any] = resource.get("status") or {}
    status = {
        "observedGeneration": metadata["generation"],
        "url": alias.url(metadata["name"], metadata["namespace"], tls=tls),
        "conditions": conditions.fold(old.get("conditions") or [], told, metadata["generation"], stamp),
    }
    if hosts:
        status["hosts"] = list(hosts)
    if hedge:
        status["hedging"] = _hedging(hedge) | ({"degraded": list(degraded)} if degraded else {})
    if variants:
        sticky = [_run(run) for run in places]
        return (
            status
            | ({"sticky": sticky} if sticky else {})
            | {
                "variants": [_variant(v, in_flight.get(v.name)) for v in variants],
                "summary": _summary(variants, in_flight),
            }
        )
    return status | {key: old[key] for key in ("variants", "sticky", "summary") if key in old}


def _hedging(hedge: Hedge) -> dict[str, Any]:
    if hedge.after is None:
        return {"message": f"Off: {hedge.why}."}
    return {"afterMilliseconds": max(1, round(1000 * hedge.after))}


def _run(run: Run) -> dict[str, Any]:
    lent = {} if run.now == run.owner else {"answeredBy": run.now}
    return {"variant": run.owner, "places": run.count, **lent}


def _variant(v: VariantFacts, in_flight: float | None) -> dict[str, Any]:
    entry = {
        "name": v.name,
        "revision": v.serving,
        "replicas": v.replicas,
        "readyReplicas": v.ready,
        "weight": v.weight,
        "effectiveWeight": v.effective,
    }
    if v.target != v.serving:
        entry["targetRevision"] = v.target
    if in_flight is not None:
        entry["inFlight"] = f"{round(in_flight * 1000)}m"
    if v.failure:
        entry["message"] = f"{v.failure.reason}: {v.failure.message}"
    return entry


def _summary(variants: Sequence[VariantFacts], in_flight: Mapping[str, float | None]) -> dict[str, str]:
    known = [value for value in in_flight.values() if value is not None]
    return {
        "variants": " · ".join(f"{v.name} {v.effective}" for v in variants),
        "replicas": f"{sum(v.ready for v in variants)}/{sum(v.replicas for v in variants)}",
        "inFlight": f"{sum(known):.1f}" if len(known) == len(variants) else "unknown",
    }
