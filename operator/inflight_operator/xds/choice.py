"""Who answers a request: the routes of one ModelDeployment below one path, in the order in which Envoy tries them.

The rules come first, then the split: by chance, or where each user has his place. Pure: no clock, socket or log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from . import clusters, retries
from .model import GRACE_MILLISECONDS, Mirror, Retries, RouteSpec, Rule
from .wire import milliseconds

MIRRORED: Final = "x-inflight-mirrored"
"""The request header that copies have, and nothing else."""
STREAM_IDLE_SECONDS: Final = 30
"""A request that moves no byte for this long is given up, unless its own timeout is longer."""

Split = Sequence[tuple[str, int | None]]
"""(backend name, weight); None: the weight is put in by `weights`"""
_Header: TypeAlias = route_components_pb2.HeaderMatcher
_Hash: TypeAlias = route_components_pb2.RouteAction.HashPolicy


def shared(spec: RouteSpec) -> list[str]:
    """The backends among which requests are split by chance: all that answer for a variant, also with the weight 0, so
    that a variant that gets its first weight is a change of weights only. Empty when nobody can answer."""
    names = [name for _, name in spec.direct] + [name for name, _ in spec.split]
    return list(dict.fromkeys(names)) if spec.split else []


@dataclass(frozen=True)
class Below:
    """The routes of `spec` for paths that begin with `prefix`, which is stripped unless it is a mere slash.

    With `grpc` they are for gRPC calls alone, whose paths are the protocol's own: there is no path but a slash then.
    """

    spec: RouteSpec
    prefix: str = "/"
    grpc: bool = False
    hidden: tuple[str, ...] = ()
    """Paths that fall through to 404."""

    def all(self) -> list[route_components_pb2.Route]:
        """Of the rules and of the split."""
        by_split = self._by_split()
        if self.spec.mirror and self.spec.split:
            for route in by_split:
                self._mirror(route.route, self.spec.mirror)
        return [*map(self._ruled, self.spec.rules), *by_split]

    def to(self, backend: str) -> route_components_pb2.Route:
        """One backend answers all."""
        return self._route(((backend, 100),))

    def _ruled(self, rule: Rule) -> route_components_pb2.Route:
        headers = []
        if rule.header and rule.exact is None:
            headers.append(_Header(name=rule.header, present_match=True))
        elif rule.header:
            headers.append(_Header(name=rule.header, string_match=string_pb2.StringMatcher(exact=rule.exact)))
        return self._route(((rule.backend, 100),), headers, rule.path)

    def _by_split(self) -> list[route_components_pb2.Route]:
        sticky, split = self.spec.sticky, self.spec.split
        if sticky is None or len(split) < 2:
            return [self._route([(name, None) for name in shared(self.spec)], hedged=True)]
        salt = f"{self.spec.namespace}/{self.spec.name}/"
        if sticky.header:
            route = self._route(split, hedged=True)
            _by_hash(route, sticky.header, "^(.*)$", salt)
            return [route]
        name = re.escape(sticky.cookie)
        known = self._route(split, [_with_cookie(name)], hedged=True)
        _by_hash(known, "cookie", f"^(?:.*; *)?{name}=([^;]*).*$", salt)
        # The id of a newcomer's first request becomes his cookie, so that this one has his place already.
        new = self._route(split, hedged=True)
        _by_hash(new, "x-request-id", "^(.*)$", salt)
        attributes = f"Path={self.prefix}; Max-Age={sticky.ttl_seconds}; HttpOnly; SameSite=Lax"
        cookie = f"{sticky.cookie}=%REQ(X-REQUEST-ID)%; {attributes}"
        new.response_headers_to_add.add(header=base_pb2.HeaderValue(key="set-cookie", value=cookie))
        return [known, new]

    def _mirror(self, action: route_components_pb2.RouteAction, mirror: Mirror) -> None:
        """Copies go out beside the request; nobody waits for their answers."""
        name = clusters.mirror_name(clusters.cluster_name(self.spec.namespace, mirror.backend))
        policy = action.request_mirror_policies.add(
            cluster=clusters.grpc_name(name) if self.grpc else name, disable_shadow_host_suffix_append=True
        )
        policy.runtime_fraction.default_value.numerator = mirror.percent
        header = base_pb2.HeaderValue(key=MIRRORED, value="1")
        policy.request_headers_mutations.add().append.CopyFrom(
            base_pb2.HeaderValueOption(
                header=header, append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
            )
        )

    def _route(
        self, split: Split, headers: Sequence[_Header] = (), path: str = "", *, hedged: bool = False
    ) -> route_components_pb2.Route:
        """Requests that match go to these backends by weight; to none: refused. `hedged`: the delay is of these."""
        match = route_components_pb2.RouteMatch(prefix=self.prefix + path.removeprefix("/"), headers=headers)
        if self.grpc:
            match.grpc.SetInParent()
        else:
            hidden = (f"{self.prefix}metrics", *self.hidden)
            match.headers.extend(
                _Header(name=":path", string_match=string_pb2.StringMatcher(prefix=path), invert_match=True)
                for path in hidden
            )
        if not split:  # the body and Retry-After come from the listener's local replies
            unavailable = route_components_pb2.DirectResponseAction(status=503)
            return route_components_pb2.Route(match=match, direct_response=unavailable)
        action = self._action(split, hedged=hedged)
        action.prefix_rewrite = "" if self.prefix == "/" else f"/{path.removeprefix('/')}"
        return route_components_pb2.Route(match=match, route=action, request_headers_to_add=self._deadline())

    def _deadline(self) -> list[base_pb2.HeaderValueOption]:
        """Tells the server how much time there is, whatever the caller says: the router must not be the first to give
        up, which it would take for a sign that the pod is dead."""
        most = self.spec.timeout_milliseconds
        if most is None:
            return []
        header = base_pb2.HeaderValue(key="x-inflight-timeout-ms", value=str(most))
        overwrite = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
        return [base_pb2.HeaderValueOption(header=header, append_action=overwrite)]

    def _action(self, split: Split, *, hedged: bool) -> route_components_pb2.RouteAction:
        asked = dict(self.spec.split)
        timeout = max(self._timeouts[name] for name, weight in split if weight is not None or name in asked)
        if (most := self.spec.timeout_milliseconds) is not None:
            timeout = min(timeout, most + GRACE_MILLISECONDS)
        action = route_components_pb2.RouteAction(
            timeout=milliseconds(timeout),
            idle_timeout=milliseconds(max(STREAM_IDLE_SECONDS * 1000, timeout + 5000)),
        )
        hedge = self.spec.hedge_milliseconds if hedged and self.spec.retries.budget_percent else None
        if hedge or self.spec.retries != Retries():
            action.retry_policy.CopyFrom(retries.policy(self.spec.retries, hedge))
        if hedge:
            action.hedge_policy.hedge_on_per_try_timeout = True
        if len(split) == 1:
            action.cluster = self._cluster(split[0][0])
        else:
            for name, weight in split:
                given = None if weight is None else UInt32Value(value=weight)
                action.weighted_clusters.clusters.add(name=self._cluster(name), weight=given)
        return action

    def _cluster(self, backend: str) -> str:
        name = clusters.cluster_name(self.spec.namespace, backend)
        return clusters.grpc_name(name) if self.grpc else name

    @property
    def _timeouts(self) -> Mapping[str, int]:
        return {backend.name: backend.timeout_milliseconds for backend in self.spec.backends}


def _with_cookie(name: str) -> _Header:
    pattern = regex_pb2.RegexMatcher(regex=f"(?:.*; *)?{name}=[^;]+.*")
    return _Header(name="cookie", string_match=string_pb2.StringMatcher(safe_regex=pattern))


def _by_hash(route: route_components_pb2.Route, header: str, pattern: str, salt: str) -> None:
    """The split of `route` is by what `pattern` finds in the header. With the salt before it no two ModelDeployments
    put the same users in the same places. Without the header it is by chance."""
    salted = regex_pb2.RegexMatchAndSubstitute(pattern=regex_pb2.RegexMatcher(regex=pattern), substitution=f"{salt}\\1")
    policy = _Hash(header=_Hash.Header(header_name=header, regex_rewrite=salted))
    route.route.hash_policy.append(policy)
    route.route.weighted_clusters.use_hash_policy.CopyFrom(BoolValue(value=True))
