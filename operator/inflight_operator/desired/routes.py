"""The RouteSpec of a ModelDeployment: every live revision is a backend, the serving ones share the weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from inflight_operator.api import names
from inflight_operator.api.names import Key
from inflight_operator.api.spec import SERVER_DEFAULTS, Variant
from inflight_operator.api.world import Address, Revision
from inflight_operator.xds.model import Backend, Endpoint, Issuer, RouteSpec

ROUTER_GRACE_MILLISECONDS: Final = 500
"""How much longer than the server a router waits: one that gave up at the same instant would cut short the answer in
which the server says that its time is up."""


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
) -> RouteSpec:
    """Routes for `key`; `effective` are the weights in force by variant, `routable` the endpoints by revision, `access`
    whose tokens are asked for."""
    plans = list(plans)
    return RouteSpec(
        namespace=key[0],
        name=key[1],
        backends=tuple(_backend(r, routable.get(r.name, r.endpoints)) for r in sorted(live, key=lambda r: r.name)),
        split=tuple((p.serving.name, effective[p.variant.name]) for p in plans if effective[p.variant.name] > 0),
        direct=tuple((p.variant.name, p.serving.name) for p in plans),
        access=access,
    )


def timeout_milliseconds(revision: Revision) -> int:
    """The longest that a request to `revision` may take."""
    return int(_server(revision)["timeoutMilliseconds"])


def _backend(revision: Revision, endpoints: Addresses) -> Backend:
    server = _server(revision)
    return Backend(
        name=revision.name,
        variant=revision.variant,
        revision=revision.revision,
        endpoints=frozenset(Endpoint(*address) for address in endpoints),
        timeout_milliseconds=timeout_milliseconds(revision) + ROUTER_GRACE_MILLISECONDS,
        max_in_flight=int(server["concurrency"]) + int(server["maxQueue"]),
        grpc_port=names.GRPC_PORT,
    )


def _server(revision: Revision) -> Mapping[str, int]:
    """The settings that the revision was born with; a record lost by hand falls back to the defaults."""
    return {**SERVER_DEFAULTS, **((revision.record or {}).get("server") or {})}
