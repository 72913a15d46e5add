"""What the router tries again, and on another pod: the retry policies of routes and the budget of a cluster.

Without idempotence only what no server can have begun to work on: a connection that failed, a stream that was refused,
and an answer with the header x-inflight-retry-after-ms, with which our server says that it has not taken the request.
Pure: no clock, socket or log.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from envoy.config.cluster.v3 import circuit_breaker_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf.wrappers_pb2 import UInt32Value

from .model import Retries
from .wire import milliseconds, packed

TRIES: Final = 5
"""Tries after the first one. A dead pod is ejected by its first failed connection, but a few hundred microseconds later
than the next try, and some milliseconds on a busy machine, where with three tries one request of 200 was lost."""
HEDGED_TRIES: Final = 2
"""With hedging: a request is on three pods at most."""
NOT_TAKEN: Final = "x-inflight-retry-after-ms"
"""The header of an answer that says that the request was not taken."""
WAIT, MAX_WAIT = milliseconds(1), milliseconds(25)
"""At once: while no request is under way nothing slows the client down, and a large body would outgrow what is kept."""
ANOTHER_POD_ATTEMPTS: Final = 20
"""How often a pod is picked until it is one that was not tried. Of the least busy ones any is picked, by chance: where
there are several, 20 are enough, and where there is one, all others have more to do."""
FLOOR: Final = 16
"""Tries that are always within the budget. All requests that wait for one dead pod are tried again at once, and of a
few requests a percentage is nothing."""

_UNSENT: Final = ("connect-failure", "refused-stream", "reset-before-request")

Policy: TypeAlias = route_components_pb2.RetryPolicy


def policy(retries: Retries, hedge_milliseconds: int | None = None) -> Policy:
    """What routes retry; with a budget of 0 nothing. With `hedge_milliseconds` it is what a hedge policy needs, which
    counts each further pod that is asked as a try."""
    if not retries.budget_percent:
        return Policy(num_retries=UInt32Value(value=0))
    on = [*_UNSENT]
    made = Policy(
        num_retries=UInt32Value(value=HEDGED_TRIES if hedge_milliseconds else TRIES),
        per_try_timeout=milliseconds(hedge_milliseconds) if hedge_milliseconds else None,
        retry_host_predicate=[_NOT_THE_SAME_POD],
        host_selection_retry_max_attempts=ANOTHER_POD_ATTEMPTS,
        retry_back_off=Policy.RetryBackOff(base_interval=WAIT, max_interval=MAX_WAIT),
    )
    if retries.elsewhere:
        on.append("retriable-headers")
        made.retriable_headers.add(name=NOT_TAKEN, present_match=True)
    if retries.idempotent:
        on.append("reset")
    made.retry_on = ",".join(on)
    return made


def budget(percent: int) -> circuit_breaker_pb2.CircuitBreakers.Thresholds.RetryBudget:
    """How many requests of one cluster may be at their second try or a later one, in percent of all that are open."""
    return circuit_breaker_pb2.CircuitBreakers.Thresholds.RetryBudget(
        budget_percent=percent_pb2.Percent(value=percent), min_retry_concurrency=UInt32Value(value=FLOOR)
    )


_NOT_THE_SAME_POD = Policy.RetryHostPredicate(
    name="envoy.retry_host_predicates.previous_hosts", typed_config=packed(previous_hosts_pb2.PreviousHostsPredicate())
)
