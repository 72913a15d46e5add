"""Who may ask: a ModelDeployment's issuers in, and out come Envoy's own filters that check tokens, on its routes alone.

Pure: no clock, socket or log. The listener has a place for filters, which is empty where a route says nothing. A route
that is closed brings its filters along, keys included: so they are tried with the route before anybody else's routes
are next to it, and no two ModelDeployments share any of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from envoy.config.core.v3 import base_pb2, extension_pb2, http_uri_pb2
from envoy.config.rbac.v3 import rbac_pb2 as policy_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.common.matcher.action.v3 import skip_action_pb2
from envoy.extensions.filters.http.composite.v3 import composite_pb2
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2 as jwt_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.type.matcher.v3 import metadata_pb2, string_pb2, value_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from xds.core.v3 import extension_pb2 as xds_extension_pb2
from xds.type.matcher.v3 import matcher_pb2

from .model import Issuer
from .wire import packed

NAME: Final = "inflight.access"
CLAIMS: Final = "envoy.filters.http.jwt_authn"
"""Where Envoy keeps what it has learned of a request's token: the claims of a good one by the issuer's place in the
list, and what is wrong with a bad one under FAILED. Nothing of it leaves the router."""
FAILED: Final = "failed"
PRESENT: Final = value_pb2.ValueMatcher(present_match=True)


def slot() -> hcm_pb2.HttpFilter:
    """The listener's filter: it does what the route says, and nothing where the route says nothing."""
    nothing = matcher_pb2.Matcher(on_no_match=_do(skip_action_pb2.SkipFilter()))
    composite = extension_pb2.TypedExtensionConfig(name=NAME, typed_config=packed(composite_pb2.Composite()))
    filter_ = extension_matcher_pb2.ExtensionWithMatcher(extension_config=composite, xds_matcher=nothing)
    return hcm_pb2.HttpFilter(name=NAME, typed_config=packed(filter_))


def on_route(issuers: tuple[Issuer, ...] | None) -> Mapping[str, Any]:
    """The `typed_per_filter_config` of routes that ask for a token of one of these issuers; None: they ask for none."""
    if issuers is None:
        return {}
    filters = composite_pb2.FilterChainConfiguration(
        typed_config=[
            extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(config))
            for name, config in (("jwt", _authentication(issuers)), ("rbac", _authorisation(issuers)))
        ]
    )
    matcher = matcher_pb2.Matcher(on_no_match=_do(composite_pb2.ExecuteFilterAction(filter_chain=filters)))
    return {NAME: packed(extension_matcher_pb2.ExtensionWithMatcherPerRoute(xds_matcher=matcher))}


def _do(action: Message) -> matcher_pb2.Matcher.OnMatch:
    return matcher_pb2.Matcher.OnMatch(
        action=xds_extension_pb2.TypedExtensionConfig(name=NAME, typed_config=packed(action))
    )


def _authentication(issuers: tuple[Issuer, ...]) -> jwt_pb2.JwtAuthentication:
    """A token of any of them will do."""
    providers = {str(number): _provider(str(number), issuer) for number, issuer in enumerate(issuers)}
    each = [jwt_pb2.JwtRequirement(provider_name=name) for name in providers]
    any_of = each[0] if len(each) == 1 else _any(each)
    everything = route_components_pb2.RouteMatch(prefix="/")
    return jwt_pb2.JwtAuthentication(
        providers=providers, rules=[jwt_pb2.RequirementRule(match=everything, requires=any_of)]
    )


def _any(requirements: Iterable[jwt_pb2.JwtRequirement]) -> jwt_pb2.JwtRequirement:
    return jwt_pb2.JwtRequirement(requires_any=jwt_pb2.JwtRequirementOrList(requirements=requirements))


def _provider(name: str, issuer: Issuer) -> jwt_pb2.JwtProvider:
    """The token comes in one header only (Envoy would also take one in the query, which ends up in logs), and a good
    one goes no further than this router."""
    return jwt_pb2.JwtProvider(
        issuer=issuer.issuer,
        audiences=issuer.audiences,
        local_jwks=base_pb2.DataSource(inline_string=issuer.keys) if issuer.keys else None,
        remote_jwks=None if issuer.keys else _NO_KEYS,
        from_headers=[jwt_pb2.JwtHeader(name="Authorization", value_prefix="Bearer ")],
        forward=False,
        require_expiration=True,
        payload_in_metadata=name,
        failed_status_in_metadata=FAILED,
    )


def _authorisation(issuers: tuple[Issuer, ...]) -> rbac_pb2.RBAC:
    """Whoever the token names must be among those who may ask."""
    allowed = [
        policy_pb2.Principal(
            sourced_metadata=policy_pb2.SourcedMetadata(metadata_matcher=known(str(number), claim, value))
        )
        for number, issuer in enumerate(issuers)
        for claim, value in _allowed(issuer)
    ]
    policy = policy_pb2.Policy(permissions=[policy_pb2.Permission(any=True)], principals=allowed)
    return rbac_pb2.RBAC(rules=policy_pb2.RBAC(policies={"access": policy}))


def _allowed(issuer: Issuer) -> Iterable[tuple[str, value_pb2.ValueMatcher]]:
    if issuer.subjects is None:
        return [("iss", PRESENT)]
    return [("sub", value_pb2.ValueMatcher(string_match=_subject(text))) for text in issuer.subjects]


def _subject(text: str) -> string_pb2.StringMatcher:
    if text.endswith("*"):
        return string_pb2.StringMatcher(prefix=text.removesuffix("*"))
    return string_pb2.StringMatcher(exact=text)


def known(place: str, key: str, value: value_pb2.ValueMatcher = PRESENT) -> metadata_pb2.MetadataMatcher:
    """Matches what Envoy has learned of the token."""
    path = [metadata_pb2.MetadataMatcher.PathSegment(key=part) for part in (place, key)]
    return metadata_pb2.MetadataMatcher(filter=CLAIMS, path=path, value=value)


# Envoy refuses a set without keys. From a cluster that isn't there it gets none: every token is answered 401.
_NO_KEYS = jwt_pb2.RemoteJwks(
    http_uri=http_uri_pb2.HttpUri(uri="https://no-keys.invalid", cluster="no-keys", timeout=Duration(seconds=1))
)
