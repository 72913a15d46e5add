"""The conditions: what a person is told in each situation, in reading order."""

from __future__ import annotations

from typing import Any

import pytest

from inflight_operator.api.conditions import Condition, Reason, Type, fold
from inflight_operator.api.world import Failure
from inflight_operator.decide.health import Facts, Scaling, VariantFacts, decide, refused


def variant(name: str = "stable", **changes: Any) -> VariantFacts:
    known: dict[str, Any] = {
        "name": name, "weight": 100, "effective": 100, "serving": "aaaa", "target": "aaaa",
        "replicas": 2, "ready": 2, "target_ready": 2, "needed": 1, "failure": None,
    }  # fmt: skip
    return VariantFacts(**{**known, **changes})


def facts(*variants: VariantFacts, **changes: Any) -> Facts:
    known: dict[str, Any] = {
        "acknowledged": True, "rejected": None, "waiting": (), "draining": (),
        "scaling": [Scaling("a", active=True, message="")],
    }  # fmt: skip
    return Facts(variants=variants or (variant(),), **{**known, **changes})


def told(answer: tuple[Condition, ...], kind: Type) -> tuple[bool | None, str]:
    found = next(item for item in answer if item.type == kind)
    return found.status, str(found.reason)


DIGEST = Failure("DigestMismatch", "expected aa, got bb")


@pytest.mark.parametrize(
    ("situation", "ready", "available", "progressing"),
    [
        pytest.param(facts(), (True, "Complete"), True, (False, "Complete"), id="all is well"),
        pytest.param(
            facts(variant(ready=0)), (False, "NoReadyEndpoint"), False, (True, "Starting"), id="first pods on their way"
        ),
        pytest.param(
            facts(variant(target="bbbb", target_ready=0)),
            (False, "RollingOut"),
            True,
            (True, "RollingOut"),
            id="rolling out",
        ),
        pytest.param(
            facts(variant(target="bbbb", target_ready=0, failure=DIGEST)),
            (False, "DigestMismatch"),
            True,
            (False, "Failed"),
            id="the new revision can't start, the old one serves",
        ),
        pytest.param(
            facts(variant(ready=0, failure=DIGEST)),
            (False, "DigestMismatch"),
            False,
            (False, "Failed"),
            id="the only revision can't start",
        ),
        pytest.param(
            facts(missing_keys=("https://login.example/keys answers 404",)),
            (False, "KeysMissing"),
            True,
            (True, "KeysMissing"),
            id="nobody's token can be checked",
        ),
        pytest.param(
            facts(holding=True),
            (False, "ShiftingTraffic"),
            True,
            (True, "ShiftingTraffic"),
            id="weights are held",
        ),
        pytest.param(
            facts(waiting=("candidate",)),
            (False, "ShiftingTraffic"),
            True,
            (True, "ShiftingTraffic"),
            id="weights move",
        ),
        pytest.param(
            facts(conflicts=["a.b.example go to b"]),
            (False, "RouteConflict"),
            True,
            (False, "RouteConflict"),
            id="a host is another's",
        ),
        pytest.param(
            facts(conflicts=["a.b.example go to b"], waiting=("candidate",)),
            (False, "ShiftingTraffic"),
            True,
            (True, "ShiftingTraffic"),
            id="which hides no progress",
        ),
        pytest.param(facts(acknowledged=False), (False, "Routing"), True, (True, "Routing"), id="routers are silent"),
        pytest.param(
            facts(rejected="bad route"), (False, "RouteRejected"), True, (False, "RouteRejected"), id="a router refused"
        ),
        pytest.param(
            facts(draining=("old",)), (True, "Complete"), True, (True, "Draining"), id="draining does not unready"
        ),
        pytest.param(
            facts(variant(), variant("candidate", ready=0)),
            (False, "Starting"),
            True,
            (True, "Starting"),
            id="one of two variants is not there",
        ),
    ],
)
def test_conditions(situation, ready, available, progressing):
    answer = decide(situation)
    assert told(answer, Type.READY) == ready
    assert told(answer, Type.AVAILABLE)[0] is available
    assert told(answer, Type.PROGRESSING) == progressing
    assert told(answer, Type.RECONCILING)[0] is (progressing[0] is True)


def test_a_failure_tells_what_still_serves():
    answer = decide(facts(variant(target="bbbb", target_ready=0, failure=DIGEST)))
    assert "expected aa, got bb (still serving: stable aaaa)" in answer[0].message
    assert told(answer, Type.STALLED) == (True, "Failed")


@pytest.mark.parametrize(
    ("scaling", "status"),
    [
        ([Scaling("a", active=True, message="")], True),
        ([Scaling("a", active=True, message=""), Scaling("b", active=False, message="no data")], False),
        ([Scaling("a", active=None, message="")], None),
        ([Scaling("a", active=True, message="", by_hpa=False)], True),
        ([Scaling("a", active=None, message="", by_hpa=False)], None),
        ([], None),
    ],
    ids=["all follow", "one can't", "not looked yet", "the operator follows", "the operator has no data", "none"],
)
def test_scaling_is_told_but_is_no_part_of_ready(scaling, status):
    answer = decide(facts(scaling=scaling))
    assert told(answer, Type.SCALING_ACTIVE)[0] is status
    assert told(answer, Type.READY)[0] is True


@pytest.mark.parametrize(
    ("reason", "accepted"), [(Reason.INVALID_SPEC, False), (Reason.CONFLICT, True), (Reason.REFUSED, True)]
)
def test_what_can_not_be_acted_on_is_stalled(reason, accepted):
    answer = refused(reason, "spec.variants: no")
    assert told(answer, Type.READY) == (False, str(reason))
    assert told(answer, Type.STALLED)[0] is True
    assert told(answer, Type.ACCEPTED)[0] is accepted


def test_transition_times_change_only_with_the_status():
    first = fold([], [Condition(Type.READY, False, "Starting", "one")], 1, "T1")
    same = fold(first, [Condition(Type.READY, False, "RollingOut", "two")], 2, "T2")
    turned = fold(same, [Condition(Type.READY, True, "Complete", "three")], 2, "T3")
    assert [c[0]["lastTransitionTime"] for c in (first, same, turned)] == ["T1", "T1", "T3"]
    assert (same[0]["reason"], same[0]["observedGeneration"]) == ("RollingOut", 2)


def test_conditions_that_are_not_told_anew_stay():
    old = fold([], [Condition(Type.AVAILABLE, True, "EndpointsReady", "")], 1, "T1")
    assert {c["type"] for c in fold(old, refused(Reason.INVALID_SPEC, "no"), 2, "T2")} >= {"Available", "Ready"}
