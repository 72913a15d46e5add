"""Why pods aren't ready: the most telling voice is heard."""

from __future__ import annotations

from typing import Any

import pytest

from inflight_operator.api.world import Failure
from inflight_operator.decide.failure import decide, look_again

TOLD = '{"reason": "DigestMismatch", "message": "expected aa, got bb"}'


def pod(*, state: dict[str, Any] | None = None, last: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    container = {"name": "server", "ready": False, "state": state or {}, "lastState": last or {}}
    return {"status": {"containerStatuses": [container], **status}}


def ended(message: str, code: int = 1, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


UNSCHEDULABLE = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]


@pytest.mark.parametrize(
    ("pods", "reason"),
    [
        pytest.param([], None, id="no pods yet"),
        pytest.param([pod(state=waiting("ContainerCreating"))], None, id="merely starting"),
        pytest.param([pod(state={"running": {}})], None, id="running and loading"),
        pytest.param([pod(state=ended(TOLD))], "DigestMismatch", id="the server's own words"),
        pytest.param(
            [pod(state=waiting("CrashLoopBackOff"), last=ended(TOLD))], "DigestMismatch", id="words of the last try"
        ),
        pytest.param([pod(last=ended("Traceback\nValueError: no"))], "Crashed", id="a crash without words"),
        pytest.param([pod(last=ended("", 137, "OOMKilled"))], "OOMKilled", id="killed for memory"),
        pytest.param([pod(state=waiting("ImagePullBackOff", "not found"))], "ImagePullBackOff", id="no image"),
        pytest.param([pod(conditions=UNSCHEDULABLE)], "Unschedulable", id="no node"),
        pytest.param(
            [pod(conditions=UNSCHEDULABLE), pod(state=ended(TOLD))],
            "DigestMismatch",
            id="the server beats the scheduler",
        ),
        pytest.param([pod(state=ended("[1, 2]"))], "Crashed", id="JSON, but not ours"),
    ],
)
def test_the_most_telling_reason_wins(pods, reason):
    found = decide(pods)
    assert (found.reason if found else None) == reason


def test_a_crash_quotes_its_last_line_and_its_exit_code():
    assert decide([pod(last=ended("Traceback\nValueError: no"))]) == Failure(
        "Crashed", "container server exited with code 1: ValueError: no"
    )


@pytest.mark.parametrize(("unready_for", "again"), [(0, 5), (3, 5), (20, 10), (80, 40), (120, 60), (86_400, 60)])
def test_what_has_failed_for_long_is_asked_seldom(unready_for: float, again: float) -> None:
    assert look_again(unready_for) == again
