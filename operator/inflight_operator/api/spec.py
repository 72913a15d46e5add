"""A ModelDeployment's spec as the operator understands it.

The CRD's schema refuses first; this repeats only what code relies on.

The defaults here are those of the CRD (a contract test holds them together), so that objects written before a
default existed mean the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from inflight_operator.api.jwks import public_keys
from inflight_operator.api.traffic import Traffic, traffic_of
from inflight_operator.errors import SpecError

Json = Mapping[str, Any]

MODEL_DEFAULTS: Final[Json] = {"format": "auto"}
SERVER_DEFAULTS: Final[Json] = {"concurrency": 1, "maxQueue": 8, "timeoutMilliseconds": 10000}
AUTOSCALING_DEFAULTS: Final[Json] = {
    "minReplicas": 1,
    "maxReplicas": 10,
    "scaleDownStabilizationSeconds": 300,
}
REVISION_HISTORY_LIMIT: Final = 3
TOTAL_WEIGHT: Final = 100


@dataclass(frozen=True)
class Variant:
    """One model that may get traffic. `model` and `server` are the user's own words, defaulted and merged."""

    name: str
    weight: int
    model: Json
    server: Json
    revision: str


@dataclass(frozen=True)
class Autoscaling:
    """Bounds and target of every variant's HPA. `target_in_flight` None: the variant's concurrency."""

    min_replicas: int
    max_replicas: int
    target_in_flight: int | None
    scale_down_stabilization_seconds: int

    def target(self, variant: Variant) -> int:
        """In-flight requests that one replica should have, on average."""
        return self.target_in_flight or int(variant.server["concurrency"])


@dataclass(frozen=True)
class ExternalIssuer:
    """Somebody who gives out tokens. Its keys are here, or else at `keys_uri`."""

    issuer: str
    audiences: tuple[str, ...]
    keys: str
    keys_uri: str


@dataclass(frozen=True)
class Access:
    """Who may ask: service accounts as `namespace/name` (`*`: all of the namespace), and tokens of an issuer."""

    service_accounts: tuple[str, ...]
    jwt: ExternalIssuer | None


@dataclass(frozen=True)
class Spec:
    """A whole ModelDeployment's spec; variants in the user's order, names unique, weights summing to 100.

    `access` None: the user says nothing about it.
    """

    variants: tuple[Variant, ...]
    autoscaling: Autoscaling
    revision_history_limit: int
    access: Access | None = None
    traffic: Traffic = field(default_factory=Traffic)


def parse(name: str, spec: Json) -> Spec:
    """Read `spec`; SpecError names the field that the user has to edit."""
    raw = spec.get("variants") or []
    if not raw:
        raise SpecError("spec.variants", "needs at least one variant")
    server = spec.get("server") or {}
    alone = len(raw) == 1
    variants = tuple(_variant(name, item, server, alone) for item in raw)
    if len({variant.name for variant in variants}) != len(variants):
        raise SpecError("spec.variants", "names must be unique")
    total = sum(variant.weight for variant in variants)
    if total != TOTAL_WEIGHT:
        raise SpecError("spec.variants", f"weights must sum to {TOTAL_WEIGHT}, they sum to {total}")
    return Spec(
        variants=variants,
        autoscaling=_autoscaling(spec.get("autoscaling") or {}),
        revision_history_limit=spec.get("revisionHistoryLimit", REVISION_HISTORY_LIMIT),
        access=access_of(spec),
        traffic=traffic_of(spec),
    )


def _variant(owner: str, raw: Json, server: Json, alone: bool) -> Variant:
    try:
        name, model = raw["name"], {**MODEL_DEFAULTS, **raw["model"]}
        model["uri"]
    except KeyError as missing:
        raise SpecError("spec.variants", f"a variant lacks {missing}") from None
    merged = {**SERVER_DEFAULTS, **server, **(raw.get("server") or {})}
    weight = raw.get("weight", TOTAL_WEIGHT if alone else 0)
    return Variant(name, weight, model, merged, revision_hash(owner, name, model, merged))


def _autoscaling(raw: Json) -> Autoscaling:
    known = {**AUTOSCALING_DEFAULTS, **raw}
    if known["minReplicas"] > known["maxReplicas"]:
        raise SpecError(
            "spec.autoscaling.minReplicas",
            f"{known['minReplicas']} is more than maxReplicas {known['maxReplicas']}",
        )
    return Autoscaling(
        min_replicas=known["minReplicas"],
        max_replicas=known["maxReplicas"],
        target_in_flight=known.get("targetInFlight"),
        scale_down_stabilization_seconds=known["scaleDownStabilizationSeconds"],
    )


def access_of(spec: Json) -> Access | None:
    """Its `traffic.access`; SpecError names the field that the user has to edit."""
    raw = (spec.get("traffic") or {}).get("access")
    if raw is None:
        return None
    return Access(tuple(raw.get("serviceAccounts") or ()), _external_issuer(raw.get("jwt")))


def _external_issuer(raw: Json | None) -> ExternalIssuer | None:
    if raw is None:
        return None
    keys, uri = raw.get("jwks", ""), raw.get("jwksUri", "")
    if bool(keys) == bool(uri):
        raise SpecError("spec.traffic.access.jwt", "needs one of jwks and jwksUri")
    try:
        return ExternalIssuer(raw["issuer"], tuple(raw["audiences"]), public_keys(keys) if keys else "", uri)
    except KeyError as missing:
        raise SpecError("spec.traffic.access.jwt", f"lacks {missing}") from None
    except ValueError as error:
        raise SpecError("spec.traffic.access.jwt.jwks", str(error)) from None


def revision_hash(owner: str, variant: str, model: Json, server: Json) -> str:
    """Eight hexadecimal digits over what the user asked for, never over what we render from it.

    Empty values are left out, so that a field added to the API later changes no hash until somebody sets it. The
    names are in it: `a-b` + `c` and `a` + `b-c` may not meet in one revision name.
    """
    asked = {"owner": owner, "variant": variant, "model": _present(model), "server": _present(server)}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


def _present(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _present(item) for key, item in value.items() if item not in (None, "", {}, [])}
    return value
