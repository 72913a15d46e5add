"""The RouteSpec of a ModelDeployment: every live revision is a backend, the serving ones share the weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from inflight_operator.api import names
from inflight_operator.api.names import Key
from inflight_operator.api.spec import SERVER_DEFAULTS, Variant
from inflight_operator.api.traffic import Traffic
from inflight_operator.api.world import Address, Revision, World
from inflight_operator.decide import stickiness
from inflight_operator.decide.stickiness import Run
from inflight_operator.decide.weights import share
from inflight_operator.xds.model import (
    GRACE_MILLISECONDS,
    Backend,
    Endpoint,
    Issuer,
    Mirror,
    RouteSpec,
    Rule,
)


class Plan(Protocol):
    """The part of a plan that routing depends on."""

    @property
    def variant(self) -> Variant: ...
    @property
    def serving(self) -> Revision: ...


Addresses = frozenset[Address]


def build(
    key: Key,
    plans: Iterable[Plan],
    live: Iterable[Revision],
    effective: Mapping[str, int],
    *,
    routable: Mapping[str, Addresses],
    access: tuple[Issuer, ...] | None,
    traffic: Traffic,
    places: Sequence[Run],
    hosts: tuple[str, ...] = (),
    hedge_milliseconds: int | None = None,
    degraded: Mapping[str, frozenset[str]] = MappingProxyType({}),
) -> RouteSpec:
    """Routes for `key` and its own `hosts`. `effective` are the weights in force by variant, `routable` endpoints by
    revision, `access` whose tokens are asked for, `places` where sticky users are, `degraded` slow addresses by
    revision."""
    plans = list(plans)
    serving = {plan.variant.name: plan.serving.name for plan in plans}
    shares = answering(places) if traffic.sticky else [(name, effective[name]) for name in serving]
    return RouteSpec(
        namespace=key[0],
        name=key[1],
        backends=tuple(
            _backend(r, routable.get(r.name, r.endpoints), degraded.get(r.name, frozenset()))
            for r in sorted(live, key=lambda r: r.name)
        ),
        split=_split(shares, serving) if any(effective.values()) else (),
        direct=tuple(serving.items()),
        access=access,
        sticky=traffic.sticky,
        rules=_rules(traffic, serving),
        mirror=_mirror(traffic, serving, effective),
        retries=traffic.retries,
        timeout_milliseconds=traffic.timeout_milliseconds,
        hosts=hosts,
        hedge_milliseconds=hedge_milliseconds,
    )


def as_told(
    seen: World,
    routable: Mapping[str, Addresses],
    access: tuple[Issuer, ...] | None,
    traffic: Traffic,
    hosts: tuple[str, ...] = (),
) -> tuple[RouteSpec, dict[str, str], dict[str, int]]:
    """Routes to what served when the status was last written, with the endpoints of now: for a ModelDeployment whose
    present spec can't be acted on. With them the revisions that serve and their weights, by variant.
    """
    live = {revision.name: revision for revision in seen.revisions.values() if revision.live}
    named = {name: names.revision_name(seen.key[1], name, told["revision"]) for name, told in seen.told.items()}
    serving = {variant: name for variant, name in named.items() if name in live}
    ready = [variant for variant, name in serving.items() if routable[name]]
    in_force, wished = ({v: seen.told[v][weight] for v in ready} for weight in ("effectiveWeight", "weight"))
    weights = share(100, in_force if any(in_force.values()) else wished)
    served = traffic.sticky and any(weights.values())
    # Whoever answers at a place now goes on: the weights in force are all that is known of what was wanted.
    held = [Run(now, now, count) for _, now, count in seen.places]
    places = stickiness.decide(held, weights, weights) if served else ()
    split = _split(answering(places) or weights.items(), serving)
    backends = tuple(_backend(live[name], routable[name]) for name in sorted(live))
    rules = _rules(traffic, serving)
    direct = tuple(serving.items())
    spec = RouteSpec(
        *seen.key,
        backends,
        split,
        direct,
        access,
        traffic.sticky,
        rules,
        mirror=_mirror(traffic, serving, weights),
        retries=traffic.retries,
        timeout_milliseconds=traffic.timeout_milliseconds,
        hosts=hosts,
    )
    return spec, serving, dict.fromkeys(serving, 0) | weights


def timeout_milliseconds(revision: Revision) -> int:
    """The longest that a request to `revision` may take."""
    return int(_server(revision)["timeoutMilliseconds"])


def answering(places: Iterable[Run]) -> list[tuple[str, int]]:
    """Who answers at how many places side by side."""
    return [(run.now, run.count) for run in places]


def _split(shares: Iterable[tuple[str, int]], serving: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    return tuple((serving[variant], weight) for variant, weight in shares if weight > 0)


def _mirror(traffic: Traffic, serving: Mapping[str, str], effective: Mapping[str, int]) -> Mirror | None:
    asked = traffic.mirror
    if asked is None or asked.variant not in serving or effective.get(asked.variant, 0):
        return None  # while it still answers somebody, copies would count as demand that moves with its weight
    return Mirror(serving[asked.variant], asked.percent, asked.max_in_flight)


def _rules(traffic: Traffic, serving: Mapping[str, str]) -> tuple[Rule, ...]:
    named = [rule for rule in traffic.rules if rule.variant in serving]
    return tuple(Rule(serving[rule.variant], rule.header, rule.exact, rule.path) for rule in named)


def _backend(revision: Revision, endpoints: Addresses, degraded: frozenset[str] = frozenset()) -> Backend:
    server = _server(revision)
    return Backend(
        name=revision.name,
        variant=revision.variant,
        revision=revision.revision,
        endpoints=frozenset(Endpoint(*address) for address in endpoints),
        timeout_milliseconds=timeout_milliseconds(revision) + GRACE_MILLISECONDS,
        max_in_flight=int(server["concurrency"]) + int(server["maxQueue"]),
        grpc_port=names.GRPC_PORT,
        degraded=degraded,
    )


def _server(revision: Revision) -> Mapping[str, int]:
    """The settings that the revision was born with; a record lost by hand falls back to the defaults."""
    return {**SERVER_DEFAULTS, **((revision.record or {}).get("server") or {})}
