"""The world of a ModelDeployment from the store: what is whose, what is ready, and what a late event may not undo."""

from __future__ import annotations

from typing import Any

import pytest

from inflight_operator.api import names
from inflight_operator.observe.store import Store
from inflight_operator.observe.world import read

KEY = ("demo", "digits")
REVISION = "digits-stable-0123abcd"


def meta(name: str, version: int = 1, uid: str = "u1", **labels: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "demo",
        "uid": f"uid-of-{name}",
        "resourceVersion": str(version),
        "labels": {names.MODEL_DEPLOYMENT: "digits", names.VARIANT: "stable", names.REVISION: "0123abcd", **labels},
        "ownerReferences": [{"kind": names.KIND, "name": "digits", "uid": uid}],
    }


def digits(version: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "digits", "namespace": "demo", "uid": "u1", "resourceVersion": str(version)},
        **changes,
    }


def endpoint(ip: str, *, ready: bool, serving: bool = True) -> dict[str, Any]:
    return {
        "addresses": [ip],
        "zone": "zone-a",
        "conditions": {"ready": ready, "serving": serving, "terminating": not ready},
    }


def piece(*endpoints: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": meta(f"{REVISION}-x", **{names.SERVICE_NAME: REVISION}),
        "ports": [{"name": "metrics", "port": 9090}, {"name": "http", "port": 8080}],
        "endpoints": list(endpoints),
    }


def store(*objects: tuple[str, dict[str, Any]]) -> Store:
    made = Store()
    for kind, obj in [(names.KIND, digits()), ("Deployment", {"metadata": meta(REVISION), "spec": {}}), *objects]:
        made.put(kind, obj)
    return made


@pytest.mark.parametrize(
    ("endpoints", "used"),
    [
        pytest.param([], set(), id="none"),
        pytest.param([endpoint("10.0.0.1", ready=True)], {"10.0.0.1"}, id="a ready one"),
        pytest.param(
            [endpoint("10.0.0.1", ready=True), endpoint("10.0.0.2", ready=False)],
            {"10.0.0.1"},
            id="one of two is leaving",
        ),
        pytest.param([endpoint("10.0.0.2", ready=False)], {"10.0.0.2"}, id="all are leaving, but still answer"),
        pytest.param([endpoint("10.0.0.2", ready=False, serving=False)], set(), id="starting"),
    ],
)
def test_endpoints_that_traffic_may_use(endpoints, used):
    world = read(store(("EndpointSlice", piece(*endpoints))), KEY)
    assert world is not None
    assert world.revisions[REVISION].endpoints == {(ip, 8080, "zone-a") for ip in used}


UNREADY = {"addresses": ["10.0.0.3"], "conditions": {"ready": False, "serving": False, "terminating": False}}


def test_a_pod_that_is_there_and_not_ready_is_known_as_such():
    leaving = endpoint("10.0.0.2", ready=False, serving=False)
    world = read(store(("EndpointSlice", piece(endpoint("10.0.0.1", ready=True), leaving, UNREADY))), KEY)
    assert world is not None
    assert world.revisions[REVISION].unready == {("10.0.0.3", 8080, "")}


def test_what_another_namespace_labels_as_ours_is_not():
    """A tenant may write EndpointSlices and labels as it likes, in its own namespace."""
    pretended = piece(endpoint("10.9.9.9", ready=True))
    pretended["metadata"]["namespace"] = "other"
    theirs = {"metadata": {**meta("digits-stable-deadbeef"), "namespace": "other"}, "spec": {}}
    world = read(store(("EndpointSlice", pretended), ("Deployment", theirs)), KEY)
    assert world is not None
    assert {name: revision.endpoints for name, revision in world.revisions.items()} == {REVISION: frozenset()}


def test_children_of_an_earlier_model_deployment_of_the_same_name_are_not_ours():
    made = store()
    made.put("Deployment", {"metadata": meta("digits-stable-deadbeef", uid="older", version=2), "spec": {}})
    world = read(made, KEY)
    assert world is not None
    assert set(world.revisions) == {REVISION}


@pytest.mark.parametrize("deleted", [False, True], ids=["gone", "going"])
def test_a_model_deployment_that_is_gone_or_going_has_no_world(deleted):
    made = Store()
    if deleted:
        obj = digits()
        obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        made.put(names.KIND, obj)
    assert read(made, KEY) is None


def test_a_late_event_does_not_undo_a_newer_reply():
    made = store()
    made.put(names.KIND, digits(9, spec="new"))
    made.put(names.KIND, digits(5, spec="old"))
    known = made.get(KEY, names.KIND, "digits")
    assert known is not None
    assert known["spec"] == "new"


def test_a_late_event_does_not_bring_a_deleted_child_back():
    made = store()
    made.drop("Deployment", {"metadata": meta(REVISION, 7)})
    made.put("Deployment", {"metadata": meta(REVISION, 6)})
    assert made.get(KEY, "Deployment", REVISION) is None
    made.put("Deployment", {"metadata": meta(REVISION, 8)})
    assert made.get(KEY, "Deployment", REVISION) is not None


def test_a_full_list_removes_what_is_not_in_it_but_not_what_came_after_it():
    made = store()
    made.put("Service", {"metadata": meta("newer", 50)})
    made.put("Service", {"metadata": meta("lost", 3)})
    made.replace("Service", [], version=10)
    assert [obj["metadata"]["name"] for obj in made.all_of(KEY, "Service")] == ["newer"]


def test_everything_of_a_key_gone_leaves_nothing_behind():
    made = store()
    made.drop("Deployment", {"metadata": meta(REVISION, 7)})
    made.drop(names.KIND, digits(8))
    assert made.known() == []


def test_objects_that_belong_to_nobody_are_ignored():
    made = Store()
    assert made.put("Service", {"metadata": {"name": "x", "namespace": "demo", "resourceVersion": "1"}}) is None
    assert made.known() == []
