"""What can be programmed: a RouteSpec is judged alone, before anything is made of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from re import compile as pattern

from .model import Backend, Issuer, RouteSpec

_LABEL = pattern(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_HEADER = pattern(r"[a-z0-9]([-a-z0-9]{0,62}[a-z0-9])?")
_COOKIE = pattern(r"[A-Za-z0-9_-]{1,64}")
_NAME = pattern(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def problem(spec: RouteSpec) -> str | None:
    """Why this RouteSpec can't be programmed, in words for its owner; None when it can.

    What passes here gives resources that keep Envoy's own constraints, and domains that no other ModelDeployment can
    have (DNS labels hold no dot), but for hosts of its own: who has one is decided elsewhere.
    """
    return next(_problems(spec), None)


def _problems(spec: RouteSpec) -> Iterator[str]:
    if not _LABEL.fullmatch(spec.namespace) or not _LABEL.fullmatch(spec.name):
        yield f"{spec.namespace}/{spec.name}: namespace and name must be DNS labels"
    for variant, _ in spec.direct:
        if not _LABEL.fullmatch(variant):
            yield f"variant name {variant!r} is not a DNS label"
    for host in spec.hosts:
        labels = host.split(".")
        if len(labels) < 3 or "svc" in labels or labels[-1][:1].isdigit() or not all(map(_LABEL.fullmatch, labels)):
            yield f"{host!r} can't be a host of its own"
    yield from _traffic_problems(spec)
    for backend in spec.backends:
        yield from _backend_problems(backend)
    if spec.access is not None:
        yield from _access_problems(spec.access)


def _traffic_problems(spec: RouteSpec) -> Iterator[str]:
    names = {backend.name for backend in spec.backends}
    if len(names) != len(spec.backends):
        yield "two backends have the same name"
    ruled = [rule.backend for rule in spec.rules] + ([spec.mirror.backend] if spec.mirror else [])
    for name in [name for name, _ in spec.split] + [name for _, name in spec.direct] + ruled:
        if name not in names:
            yield f"traffic is sent to the unknown backend {name!r}"
    weights = [weight for _, weight in spec.split]
    if weights and (sum(weights) != 100 or min(weights) < 1):
        yield f"the weights {weights} are not positive integers that sum to 100"
    if spec.sticky is None and len({name for name, _ in spec.split}) != len(spec.split):
        yield "a backend has two weights"
    yield from _effort_problems(spec)
    for header in [rule.header for rule in spec.rules] + ([spec.sticky.header] if spec.sticky else []):
        if header and not _HEADER.fullmatch(header):
            yield f"{header!r} is no name of a header"
    if spec.sticky and spec.sticky.cookie and not _COOKIE.fullmatch(spec.sticky.cookie):
        yield f"{spec.sticky.cookie!r} is no name of a cookie"


def _effort_problems(spec: RouteSpec) -> Iterator[str]:
    if not 0 <= spec.retries.budget_percent <= 100:
        yield f"{spec.retries.budget_percent} % of the requests can't be at another try"
    if spec.timeout_milliseconds is not None and spec.timeout_milliseconds < 1:
        yield "the timeout must be positive"
    if spec.hedge_milliseconds is not None and (spec.hedge_milliseconds < 1 or not spec.retries.hedged):
        yield "a request is asked of another pod as well after a while, and if somebody wants it"
    if spec.retries.hedged and not spec.retries.idempotent:
        yield "only what may be executed twice is asked of another pod as well"
    if spec.mirror and not (1 <= spec.mirror.percent <= 100 and spec.mirror.max_in_flight >= 1):
        yield f"{spec.mirror.percent} % of the requests, {spec.mirror.max_in_flight} at once, can't be mirrored"


def _backend_problems(backend: Backend) -> Iterator[str]:
    if not _NAME.fullmatch(backend.name):
        yield f"backend name {backend.name!r} is not a DNS name"
    if backend.timeout_milliseconds < 1 or backend.max_in_flight < 1:
        yield f"backend {backend.name}: timeout and max_in_flight must be positive"
    for endpoint in backend.endpoints:
        if not _is_address(endpoint.address):
            yield f"backend {backend.name}: endpoint {endpoint.address!r} is not an IP address"
        if not 1 <= endpoint.port <= 65535:
            yield f"backend {backend.name}: endpoint port {endpoint.port} is out of range"


def _access_problems(issuers: tuple[Issuer, ...]) -> Iterator[str]:
    """Envoy takes an issuer or an audience that is left out for "any"."""
    if not issuers:
        yield "nobody may ask: there is no issuer of tokens"
    for issuer in issuers:
        if not (issuer.issuer and issuer.audiences and all(issuer.audiences)):
            yield f"the issuer {issuer.issuer!r} needs a name and audiences"
        if issuer.subjects is not None and not (issuer.subjects and all(issuer.subjects)):
            yield f"the issuer {issuer.issuer!r} has subjects without a name"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
