"""What the routers are told of a ModelDeployment's revisions."""

from typing import Any

import pytest

from inflight_operator.api.traffic import Mirror, Rule, Sticky, Traffic
from inflight_operator.api.world import Revision, World
from inflight_operator.desired import routes
from inflight_operator.xds import check
from inflight_operator.xds.model import GRACE_MILLISECONDS


def revision(server: dict[str, Any] | None) -> Revision:
    record = None if server is None else {"server": server}
    return Revision("digits-main-0a1b2c3d", "main", "0a1b2c3d", record, {}, frozenset({("10.0.0.1", 8080, "")}), "")


@pytest.mark.parametrize(
    ("server", "waits", "holds"),
    [
        pytest.param({"timeoutMilliseconds": 2000, "concurrency": 2, "maxQueue": 3}, 2500, 5, id="as it was born"),
        pytest.param({}, 10_500, 9, id="with the defaults"),
        pytest.param(None, 10_500, 9, id="with its record lost"),
    ],
)
def test_a_router_waits_longer_than_the_server_so_that_the_server_has_the_last_word(server, waits, holds):
    made = routes.build(
        ("demo", "digits"), [], [revision(server)], {}, routable={}, access=None, traffic=Traffic(), places=()
    )
    (backend,) = made.backends
    assert backend.timeout_milliseconds == waits
    assert backend.max_in_flight == holds
    assert routes.timeout_milliseconds(revision(server)) == waits - GRACE_MILLISECONDS


def world(*told: tuple[str, int, int], gone: str = "", unready: str = "") -> World:
    """Variants with (name, weight in force, weight asked for), as a status tells them; each has one pod."""
    entries = [{"name": n, "revision": "0a1b2c3d", "effectiveWeight": e, "weight": w} for n, e, w in told]
    revisions = {}
    for name, _, _ in told:
        pods = frozenset() if name == unready else frozenset({("10.0.0.1", 8080)})
        objects = {} if name == gone else {"Deployment": {"metadata": {}}}
        made = Revision(f"digits-{name}-0a1b2c3d", name, "0a1b2c3d", None, objects, pods, "")
        revisions[made.name] = made
    return World(("demo", "digits"), {"status": {"variants": entries}}, revisions, None)


@pytest.mark.parametrize(
    ("seen", "split"),
    [
        pytest.param(world(("a", 70, 95), ("b", 30, 5)), {"a": 70, "b": 30}, id="the weights in force stay"),
        pytest.param(world(("a", 0, 95), ("b", 0, 5)), {"a": 95, "b": 5}, id="nothing was in force"),
        pytest.param(world(("a", 70, 70), ("b", 30, 30), gone="b"), {"a": 100}, id="one is gone"),
        pytest.param(world(("a", 70, 70), ("b", 30, 30), unready="a"), {"b": 100}, id="one has no pod"),
        pytest.param(world(), {}, id="nothing has ever served"),
    ],
)
def test_what_served_is_routed_to_when_the_present_spec_can_not_be_acted_on(seen, split):
    routable = {name: revision.endpoints for name, revision in seen.revisions.items()}
    made, serving, weights = routes.as_told(seen, routable, None, Traffic())
    assert dict(made.split) == {serving[variant]: weight for variant, weight in split.items()}
    assert {variant: weight for variant, weight in weights.items() if weight} == split
    assert check.problem(made) is None


def test_a_spec_that_can_not_be_acted_on_moves_no_sticky_user():
    seen = world(("a", 70, 95), ("b", 30, 5))
    seen.resource["status"]["sticky"] = [{"variant": "b", "places": 30}, {"variant": "a", "places": 70}]
    traffic = Traffic(
        Sticky("x-user", "", 60), (Rule("b", "x-qa", "1", ""), Rule("gone", "x-old", None, "")), Mirror("b", 10, 5)
    )
    routable = {name: revision.endpoints for name, revision in seen.revisions.items()}
    made, serving, _ = routes.as_told(seen, routable, None, traffic)
    assert made.split == ((serving["b"], 30), (serving["a"], 70))
    assert made.sticky is not None
    assert made.sticky.header == "x-user"
    assert [rule.backend for rule in made.rules] == [serving["b"]], "of a variant that isn't there, none"
    assert made.mirror is None, "it answers somebody still"
    assert check.problem(made) is None


def test_a_shift_that_stops_half_way_moves_no_sticky_user():
    seen = world(("a", 95, 90), ("b", 5, 10))
    lent = [{"variant": "b", "places": 5, "answeredBy": "a"}, {"variant": "b", "places": 5}]
    seen.resource["status"]["sticky"] = [{"variant": "a", "places": 90}, *lent]
    routable = {name: revision.endpoints for name, revision in seen.revisions.items()}
    made, serving, _ = routes.as_told(seen, routable, None, Traffic(Sticky("x-user", "", 60)))
    assert made.split == ((serving["a"], 95), (serving["b"], 5))


@pytest.mark.parametrize("seen", [world(), world(("a", 0, 0), ("b", 0, 100), unready="b")], ids=["never", "none"])
def test_sticky_users_of_what_serves_nobody_are_refused_and_no_bug(seen):
    routable = {name: revision.endpoints for name, revision in seen.revisions.items()}
    made, _, _ = routes.as_told(seen, routable, None, Traffic(Sticky("x-user", "", 60), (), Mirror("b", 10, 5)))
    assert made.split == ()
    assert check.problem(made) is None


def test_a_variant_that_still_answers_somebody_gets_no_copies():
    traffic = Traffic(mirror=Mirror("b", 100, 5))
    made = []
    for weight in (50, 0):
        seen = world(("a", 100 - weight, 100), ("b", weight, 0))
        routable = {name: revision.endpoints for name, revision in seen.revisions.items()}
        made.append(routes.as_told(seen, routable, None, traffic)[0].mirror)
    assert made == [None, routes.Mirror("digits-b-0a1b2c3d", 100, 5)]
