"""What the router has to know, as plain data: the only input of the xDS control plane.

The reconciler makes one `RouteSpec` per ModelDeployment; `xds.build` turns it into Envoy resources.
Nothing here knows Kubernetes or protobuf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GRACE_MILLISECONDS: Final = 500
"""How much longer than the server a router waits: one that gave up at the same instant would cut short the answer in
which the server says that its time is up."""


@dataclass(frozen=True, order=True)
class Endpoint:
    """One ready address, and the zone that it lies in, empty where it isn't known."""

    address: str
    port: int
    zone: str = ""


@dataclass(frozen=True)
class Backend:
    """One live revision: an Envoy cluster with its endpoints.

    `name` is the revision's Kubernetes name, unique in its namespace; `timeout_milliseconds` is the longest a
    request to it may take; `max_in_flight` is how many requests one replica can hold (running and queued);
    `grpc_port` is where its replicas take gRPC; `degraded` the addresses of those that are asked only where the others
    are too few.
    """

    name: str
    variant: str
    revision: str
    endpoints: frozenset[Endpoint]
    timeout_milliseconds: int
    max_in_flight: int
    grpc_port: int
    degraded: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Issuer:
    """Whose tokens open a ModelDeployment.

    A token must be for one of the `audiences`. `keys` is a JSON Web Key Set, empty while it isn't known:
    then no token is good. `subjects` may ask, a last `*` standing for any end; None: whoever has a token.
    """

    issuer: str
    audiences: tuple[str, ...]
    keys: str
    subjects: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Sticky:
    """By what a user is known: the value of a request header, or of a cookie.

    Who comes without the cookie is given one for `ttl_seconds`; who comes without the header is nobody in particular.
    """

    header: str = ""
    cookie: str = ""
    ttl_seconds: int = 0


@dataclass(frozen=True)
class Rule:
    """Requests that one backend answers whatever the split is: with this header (`exact` None: any value) and below
    this path; empty: whatever it is."""

    backend: str
    header: str = ""
    exact: str | None = None
    path: str = ""


@dataclass(frozen=True)
class Mirror:
    """A backend that gets copies of `percent` of the requests that are split, and answers nobody. A router that has
    `max_in_flight` of them open sends no more."""

    backend: str
    percent: int
    max_in_flight: int


@dataclass(frozen=True)
class Retries:
    """What is tried again, as long as no more than `budget_percent` of the open requests are at it (0: nothing is).

    A pod that could not be reached: always. `elsewhere`: what a pod refused, since there can be another one.
    `idempotent`: also what a pod may have executed. `hedged`: what takes long may be asked of another pod as well.
    """

    budget_percent: int = 20
    elsewhere: bool = True
    idempotent: bool = False
    hedged: bool = False


@dataclass(frozen=True)
class RouteSpec:
    """All of one ModelDeployment's traffic.

    `split` is (backend name, weight), weights are integers that sum to 100 (weight 0 left out); empty when no
    backend has a ready endpoint: the router then answers 503 with Retry-After. Each backend is there at most once,
    but for `sticky`: then the split is a ruler, in this order, on which each user has his place.
    `rules` come before it, in their order.
    `direct` is (variant name, backend name): who answers `/<namespace>/<name>/variants/<variant>/...`.
    `timeout_milliseconds` is the longest that a request may take, whoever answers; None: as long as its backend says.
    `hedge_milliseconds`: a request that has no answer then is asked of another pod as well; None: it isn't.
    `hosts` are names of its own, beside those of its Service; no two RouteSpecs may have the same one.
    `access` are the issuers one of whose tokens a request must bring; None: it needs none.
    """

    namespace: str
    name: str
    backends: tuple[Backend, ...]
    split: tuple[tuple[str, int], ...]
    direct: tuple[tuple[str, str], ...]
    access: tuple[Issuer, ...] | None = None
    sticky: Sticky | None = None
    rules: tuple[Rule, ...] = ()
    mirror: Mirror | None = None
    retries: Retries = Retries()
    timeout_milliseconds: int | None = None
    hosts: tuple[str, ...] = ()
    hedge_milliseconds: int | None = None


@dataclass(frozen=True)
class Pace:
    """One pod in the last seconds: requests in progress on average; sent to it, and answered by it, per second."""

    in_progress: float
    sent: float
    answered: float


@dataclass(frozen=True)
class Programmed:
    """How far one ModelDeployment's routes have got.

    `acknowledged` is true when every router has accepted the RouteSpec last given (false while one that serves is not
    connected, or none is). `rejected` is the router's own words when it refused it; the last accepted routes
    stay in force then, and nobody else's are touched.
    """

    acknowledged: bool
    rejected: str | None = None
