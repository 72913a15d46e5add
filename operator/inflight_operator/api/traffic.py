"""What a ModelDeployment's `spec.traffic` says of its requests; who may ask is in `spec`.

The defaults here are those of the CRD (a contract test holds them together).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from inflight_operator.errors import SpecError
from inflight_operator.xds.model import Retries, Sticky

Json = Mapping[str, Any]

MIRROR_DEFAULTS: Final[Json] = {"percent": 100, "maxInFlight": 32}
RETRY_DEFAULTS: Final[Json] = {"budgetPercent": Retries().budget_percent}
_HOST: Final = re.compile(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.){2,}[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
"""At least three labels, and the last one is no number. With two it is the address of a ModelDeployment,
`<name>.<namespace>`; an IP address is the router's own."""
_MAX_HOST: Final = 253
HEDGING_DEFAULTS: Final[Json] = {"budgetPercent": 5}
COOKIE_TTL_SECONDS: Final = 30 * 24 * 3600


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
class Traffic:
    """How requests reach the variants, beside the weights: who answers, who gets copies, and how hard it is tried."""

    sticky: Sticky | None = None
    rules: tuple[Rule, ...] = ()
    mirror: Mirror | None = None
    retries: Retries = field(default_factory=Retries)
    timeout_milliseconds: int | None = None
    hedge_percent: int | None = None
    """Of the requests, how many may be asked of another pod as well; None: none."""


def traffic_of(spec: Json) -> Traffic:
    """Its `traffic` without `access`; SpecError names the field that the user has to edit."""
    traffic, variants = spec.get("traffic") or {}, spec.get("variants") or []
    weights = {variant.get("name"): variant.get("weight") for variant in variants}
    rules = tuple(_rule(raw) for raw in traffic.get("rules") or ())
    for rule in rules:
        if rule.variant not in weights:
            raise SpecError("spec.traffic.rules", f"there is no variant {rule.variant!r}")
    mirror = _mirror(traffic.get("mirror"))
    if mirror and weights.get(mirror.variant) != 0:
        raise SpecError("spec.traffic.mirror.variant", f"there is no variant {mirror.variant!r} with weight 0")
    sticky = _sticky(traffic.get("sticky"))
    hosts_of(spec)
    retries = _retries(spec, traffic)
    return Traffic(sticky, rules, mirror, retries, traffic.get("timeoutMilliseconds"), _hedging(traffic, retries))


def _hedging(traffic: Json, retries: Retries) -> int | None:
    raw = traffic.get("hedging")
    if raw is None:
        return None
    if not retries.idempotent or not retries.budget_percent:
        raise SpecError("spec.traffic.hedging", "needs idempotent: true and a budget of retries")
    return int({**HEDGING_DEFAULTS, **raw}["budgetPercent"])


def hosts_of(spec: Json) -> tuple[str, ...]:
    """Its `traffic.hosts`; SpecError when one can't be a host of its own."""
    hosts = tuple((spec.get("traffic") or {}).get("hosts") or ())
    for host in hosts:
        if not _HOST.fullmatch(host) or len(host) > _MAX_HOST or "svc" in host.split("."):
            raise SpecError("spec.traffic.hosts", f"{host!r} can't be a host name of its own")
    return hosts


def _retries(spec: Json, traffic: Json) -> Retries:
    known = {**RETRY_DEFAULTS, **(traffic.get("retries") or {})}
    alone = (spec.get("autoscaling") or {}).get("maxReplicas") == 1
    return Retries(known["budgetPercent"], not alone, traffic.get("idempotent", False), "hedging" in traffic)


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
