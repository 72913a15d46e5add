"""Which revision has a variant's weight: the old one until the new one is big enough."""

from __future__ import annotations

import pytest

from inflight_operator.decide.rollout import Limits, Size, decide, replicas_for

LIMITS = Limits(min_replicas=1, max_replicas=10, target_in_flight=2)
OLD, NEW, FAILED = "old", "new", "failed"


@pytest.mark.parametrize(
    ("recorded", "live", "demand", "serving", "birth"),
    [
        pytest.param(None, {}, 0.0, NEW, 1, id="the first revision has the weight from the start"),
        pytest.param(NEW, {NEW: Size(3, 3)}, 6.0, NEW, None, id="nothing changes when it serves already"),
        pytest.param(OLD, {OLD: Size(3, 3)}, 5.0, OLD, 3, id="a new revision is born as big as the old one"),
        pytest.param(OLD, {OLD: Size(30, 30)}, 5.0, OLD, 10, id="but not above maxReplicas"),
        pytest.param(OLD, {OLD: Size(3, 3), NEW: Size(3, 0)}, 5.0, OLD, None, id="unready takes nothing"),
        pytest.param(
            OLD, {OLD: Size(3, 3), NEW: Size(1, 1)}, 5.0, OLD, 3, id="made, but killed before it was given its size"
        ),
        pytest.param(
            OLD, {OLD: Size(5, 5), NEW: Size(3, 3)}, 9.0, OLD, 5, id="it grows with the old one while it waits"
        ),
        pytest.param(
            OLD, {OLD: Size(3, 3), NEW: Size(3, 2)}, 5.0, OLD, None, id="too small for the demand takes nothing"
        ),
        pytest.param(OLD, {OLD: Size(3, 3), NEW: Size(3, 3)}, 5.0, NEW, None, id="big enough takes all"),
        pytest.param(OLD, {OLD: Size(3, 3), NEW: Size(3, 1)}, 0.5, NEW, None, id="little demand needs few"),
        pytest.param(
            OLD, {OLD: Size(3, 3), NEW: Size(3, 2)}, None, OLD, None, id="unknown demand: as big as the old one"
        ),
        pytest.param(OLD, {OLD: Size(3, 3), NEW: Size(3, 3)}, None, NEW, None, id="as big as the old one will do"),
        pytest.param(OLD, {NEW: Size(1, 0)}, 5.0, NEW, None, id="the old one vanished"),
        pytest.param(None, {OLD: Size(2, 2), NEW: Size(2, 0)}, 0.0, OLD, None, id="record lost: who is ready serves"),
        pytest.param(
            OLD, {OLD: Size(2, 0), NEW: Size(2, 2)}, 0.0, NEW, None, id="the old one is broken, the new one ready"
        ),
    ],
)
def test_who_has_the_weight(recorded, live, demand, serving, birth):
    decided = decide(NEW, recorded, live, LIMITS, demand)
    assert (decided.serving, decided.birth) == (serving, birth)


def test_a_failed_attempt_is_superseded_by_the_mended_spec():
    live = {OLD: Size(1, 1), FAILED: Size(1, 0), NEW: Size(1, 0)}
    assert decide(NEW, OLD, live, LIMITS, 0.0).superseded == (FAILED,)


def test_going_back_to_the_old_spec_supersedes_the_new_revision_at_once():
    decided = decide(OLD, OLD, {OLD: Size(1, 1), NEW: Size(1, 0)}, LIMITS, 0.0)
    assert decided.complete
    assert decided.superseded == (NEW,)


@pytest.mark.parametrize(
    ("demand", "replicas"), [(0.0, 1), (2.0, 1), (2.0001, 1), (2.01, 2), (8.0, 4), (8.1, 5)], ids=str
)
def test_replicas_follow_the_hpas_formula(demand, replicas):
    assert replicas_for(demand, LIMITS) == replicas
