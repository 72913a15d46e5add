"""Reviews are asked widest first and remembered for ten seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from inflight_operator.errors import TransientError
from inflight_operator.metrics_api.authorisation import KEEP_SECONDS, Authoriser
from inflight_operator.metrics_api.identity import User

HPA = User("system:serviceaccount:kube-system:horizontal-pod-autoscaler", ("system:authenticated",))
ADA = User("ada")
EVE = User("eve")


class Reviews:
    """An API server that allows the HPA controller everything, Ada her namespace, Bob one Deployment, Eve nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.now = 100.0
        self.authoriser = Authoriser(self.review, lambda: self.now)

    async def review(self, question: Mapping[str, Any]) -> bool:
        attributes = question["resourceAttributes"]
        scope = (question["user"], attributes["namespace"], attributes["name"])
        self.asked.append(scope)
        match scope:
            case (HPA.name, _, _) | (ADA.name, "demo", _) | ("bob", "demo", "digits"):
                return True
        return False


async def test_who_may_read_everything_costs_one_review_for_any_number_of_deployments() -> None:
    reviews = Reviews()
    for number in range(2000):
        assert await reviews.authoriser.may_read(HPA, f"ns-{number % 50}", f"model-{number}")
    assert reviews.asked == [(HPA.name, "", "")]


@pytest.mark.parametrize(
    ("user", "namespace", "name", "allowed"),
    [
        pytest.param(ADA, "demo", "digits", True, id="own-namespace"),
        pytest.param(ADA, "other", "digits", False, id="other-namespace"),
        pytest.param(User("bob"), "demo", "digits", True, id="one-deployment"),
        pytest.param(User("bob"), "demo", "letters", False, id="its-neighbour"),
        pytest.param(EVE, "demo", "digits", False, id="nobody"),
    ],
)
async def test_narrower_rights_are_found(user: User, namespace: str, name: str, allowed: bool) -> None:
    assert await Reviews().authoriser.may_read(user, namespace, name) is allowed


@pytest.mark.parametrize("user", [pytest.param(HPA, id="yes"), pytest.param(EVE, id="no")])
async def test_an_answer_is_kept_for_ten_seconds_and_no_longer(user: User) -> None:
    reviews = Reviews()
    await reviews.authoriser.may_read(user, "demo", "digits")
    asked = len(reviews.asked)
    reviews.now += KEEP_SECONDS - 0.1
    await reviews.authoriser.may_read(user, "demo", "digits")
    assert len(reviews.asked) == asked
    reviews.now += 0.1
    await reviews.authoriser.may_read(user, "demo", "digits")
    assert len(reviews.asked) == 2 * asked


async def test_the_same_name_in_another_group_is_another_user() -> None:
    reviews = Reviews()
    await reviews.authoriser.may_read(User("ada", ("a",)), "demo", "digits")
    asked = len(reviews.asked)
    await reviews.authoriser.may_read(User("ada", ("b",)), "demo", "digits")
    assert len(reviews.asked) == 2 * asked


async def test_a_question_names_the_metric_as_rbac_does() -> None:
    asked: list[Mapping[str, Any]] = []

    async def review(question: Mapping[str, Any]) -> bool:
        asked.append(question)
        return True

    user = User("ada", ("readers",), {"scope": ("one",)})
    await Authoriser(review, lambda: 0.0).may_read(user, "demo", "digits")
    assert asked == [
        {
            "user": "ada",
            "groups": ["readers"],
            "extra": {"scope": ["one"]},
            "resourceAttributes": {
                "group": "custom.metrics.k8s.io",
                "version": "v1beta2",
                "resource": "deployments.apps",
                "subresource": "inflight_requests",
                "verb": "get",
                "namespace": "",
                "name": "",
            },
        }
    ]


async def test_a_review_that_fails_is_not_remembered_as_a_no() -> None:
    answers: list[bool | TransientError] = [TransientError("API server: connection refused"), True]

    async def review(_: Mapping[str, Any]) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, TransientError):
            raise answer
        return answer

    authoriser = Authoriser(review, lambda: 0.0)
    with pytest.raises(TransientError):
        await authoriser.may_read(HPA, "demo", "digits")
    assert await authoriser.may_read(HPA, "demo", "digits")
