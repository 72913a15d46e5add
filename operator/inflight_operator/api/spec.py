"""A ModelDeployment's spec as the operator understands it.

The CRD's schema refuses first; this repeats only what code relies on.

The defaults here are those of the CRD (a contract test holds them together), so that objects written before a
default existed mean the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from inflight_operator.api.jwks import public_keys
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
MIRROR_DEFAULTS: Final[Json] = {"percent": 100, "maxInFlight": 32}
COOKIE_TTL_SECONDS: Final = 30 * 24 * 3600
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
class Sticky:
    """By what a user is known: the value of a request header, or of a cookie that is kept for `ttl_seconds`."""

    header: str
    cookie: str
    ttl_seconds: int


@dataclass(frozen=True)
class Rule:
    """Requests for `variant`: with this header (`exact` None: any value), below this path; empty: whatever it is."""

    variant: str
    header: str
    exact: str | None
    path: str


@dataclass(frozen=True)
class Mirror:
    """Copies of `percent` of the requests for `variant`, at most `max_in_flight` at once from each router."""

    variant: str
    percent: int
    max_in_flight: int


@dataclass(frozen=True)
class Choice:
    """How it is chosen who answers, beside the weights, and who gets copies."""

    sticky: Sticky | None = None
    rules: tuple[Rule, ...] = ()
    mirror: Mirror | None = None


@dataclass(frozen=True)
class Spec:
    """A whole ModelDeployment's spec; variants in the user's order, names unique, weights summing to 100.

    `access` None: the user says nothing about it.
    """

    variants: tuple[Variant, ...]
    autoscaling: Autoscaling
    revision_history_limit: int
    access: Access | None = None
    choice: Choice = Choice()


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
        choice=choice_of(spec),
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


def choice_of(spec: Json) -> Choice:
    """Its `traffic.sticky`, `.rules` and `.mirror`; SpecError names the field that the user has to edit."""
    traffic, variants = spec.get("traffic") or {}, spec.get("variants") or []
    weights = {variant.get("name"): variant.get("weight") for variant in variants}
    rules = tuple(_rule(raw) for raw in traffic.get("rules") or ())
    for rule in rules:
        if rule.variant not in weights:
            raise SpecError("spec.traffic.rules", f"there is no variant {rule.variant!r}")
    mirror = _mirror(traffic.get("mirror"))
    if mirror and weights.get(mirror.variant) != 0:
        raise SpecError("spec.traffic.mirror.variant", f"there is no variant {mirror.variant!r} with weight 0")
    return Choice(_sticky(traffic.get("sticky")), rules, mirror)


def _mirror(raw: Json | None) -> Mirror | None:
    if raw is None:
        return None
    known = {**MIRROR_DEFAULTS, **raw}
    return Mirror(known.get("variant", ""), known["percent"], known["maxInFlight"])


def _sticky(raw: Json | None) -> Sticky | None:
    if raw is None:
        return None
    header, cookie = raw.get("header", ""), raw.get("cookie", "")
    if bool(header) == bool(cookie):
        raise SpecError("spec.traffic.sticky", "needs one of header and cookie")
    return Sticky(header, cookie, raw.get("ttlSeconds", COOKIE_TTL_SECONDS))


def _rule(raw: Json) -> Rule:
    header, path = raw.get("header") or {}, raw.get("path") or {}
    rule = Rule(raw.get("variant", ""), header.get("name", ""), header.get("exact"), path.get("prefix", ""))
    if not rule.header and not rule.path:
        raise SpecError("spec.traffic.rules", "a rule needs a header, a path, or both")
    return rule


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
