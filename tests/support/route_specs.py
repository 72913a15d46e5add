"""Builders of RouteSpecs for tests."""

from __future__ import annotations

from collections.abc import Iterable

from inflight_operator.xds.model import Backend, Endpoint, RouteSpec


def backend(
    variant: str = "stable",
    ports: Iterable[int] = (9,),
    *,
    revision: str = "aaaa1111",
    model: str = "digits",
    timeout: int = 2000,
    max_in_flight: int = 9,
) -> Backend:
    """A revision of `model` whose pods listen on these ports of loopback."""
    return Backend(
        name=f"{model}-{variant}-{revision}",
        variant=variant,
        revision=revision,
        endpoints=frozenset(Endpoint("127.0.0.1", port) for port in ports),
        timeout_milliseconds=timeout,
        max_in_flight=max_in_flight,
        grpc_port=8081,
    )


def route_spec(
    *backends: Backend, name: str = "digits", namespace: str = "demo", weights: Iterable[int] = (100,)
) -> RouteSpec:
    """All backends directly by their variants, and split by weights in their order (0: left out)."""
    split = tuple((b.name, weight) for b, weight in zip(backends, weights, strict=False) if weight)
    direct = tuple((b.variant, b.name) for b in backends)
    return RouteSpec(namespace, name, tuple(backends), split, direct)
