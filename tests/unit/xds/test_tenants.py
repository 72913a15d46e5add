"""Whatever two tenants call their things, nothing of the one has a name of the other's in the routers."""

from __future__ import annotations

from envoy.config.route.v3 import route_pb2
from hypothesis import assume, example, given
from hypothesis import strategies as st
from xds.type.matcher.v3 import matcher_pb2

from inflight_operator.xds import build
from route_specs import backend, route_spec

# Few letters and many hyphens: names that read alike when they are joined.
label = st.from_regex(r"[ab]([ab-]{0,4}[ab])?", fullmatch=True) | st.sampled_from(
    ["svc", "variants", "local", "metrics"]
)
names = st.tuples(label, label, label)
"""(namespace, ModelDeployment, variant)."""


def taken(namespace: str, name: str, variant: str) -> tuple[set[str], set[str], set[str]]:
    """Clusters, hosts and path prefixes of a ModelDeployment with one variant."""
    made = build.pieces(route_spec(backend(variant, model=name), namespace=namespace, name=name))
    (host,) = route_pb2.RouteConfiguration.FromString(made.routes.host).virtual_hosts
    paths = matcher_pb2.Matcher.MatcherTree.MatchMap.FromString(made.routes.paths)
    return {*made.clusters, *made.endpoints}, {host.name, *host.domains}, set(paths.map)


@given(names, names)
@example(("a-b", "a", "b"), ("a", "b-a", "b"))
@example(("a", "a", "b-a"), ("a-a", "a", "b"))
def test_no_two_modeldeployments_share_a_name_in_the_routers(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    """Seen failing with clusters named `<namespace>-<backend>`."""
    assume(one[:2] != other[:2])
    # Within a namespace revisions are kept apart by Kubernetes, where each is a Deployment.
    assume(one[0] != other[0] or f"{one[1]}-{one[2]}" != f"{other[1]}-{other[2]}")
    for mine, theirs in zip(taken(*one), taken(*other), strict=True):
        assert not mine & theirs
    assert not any(b.startswith(a) or a.startswith(b) for a in taken(*one)[2] for b in taken(*other)[2])
