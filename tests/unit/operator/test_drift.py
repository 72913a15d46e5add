"""What counts as a difference: hand edits and fields we stopped setting do, server defaults don't."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from inflight_operator.api.names import APPLIED_HASH
from inflight_operator.apply.drift import covers, same

MANIFEST: dict[str, Any] = {
    "kind": "Deployment",
    "metadata": {"name": "a", "labels": {"x": "1"}, "annotations": {APPLIED_HASH: "h1"}},
    "spec": {
        "template": {"containers": [{"name": "s", "cpu": "1000m", "env": [{"name": "A", "value": "1"}]}]},
        "empty": {},
    },
}


def live(**changes: Any) -> dict[str, Any]:
    """As the server keeps it: defaults added, quantities canonical, empty things dropped."""
    obj = copy.deepcopy(MANIFEST)
    del obj["spec"]["empty"]
    container = obj["spec"]["template"]["containers"][0]
    container |= {"cpu": "1", "terminationMessagePath": "/dev/termination-log"}
    obj["spec"]["replicas"] = 7
    container |= changes
    return obj


@pytest.mark.parametrize(
    ("obj", "equal"),
    [
        pytest.param(live(), True, id="server defaults and replicas are not drift"),
        pytest.param(None, False, id="missing"),
        pytest.param(live(name="other"), False, id="a value changed by hand"),
        pytest.param(live(env=[]), False, id="a list entry removed by hand"),
        pytest.param(live(env=[{"name": "A", "value": "1"}, {"name": "B"}]), False, id="a list entry added by hand"),
        pytest.param(live(cpu="2"), False, id="a quantity changed by hand"),
    ],
)
def test_drift(obj, equal):
    assert same(MANIFEST, obj) is equal


def test_a_field_that_we_no_longer_set_is_noticed_by_the_hash():
    less = copy.deepcopy(MANIFEST)
    del less["metadata"]["labels"]
    less["metadata"]["annotations"][APPLIED_HASH] = "h2"
    assert covers(live(), {k: v for k, v in less.items() if k != "metadata"})
    assert not same(less, live())


@pytest.mark.parametrize(("one", "other"), [("1Gi", "1024Mi"), ("0.5", "500m"), ("2", 2), ("1k", "1000")], ids=str)
def test_quantities_are_compared_by_value(one, other):
    assert covers(one, other)
