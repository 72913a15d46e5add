"""A scanner's findings are explained one by one, and an explanation that nothing needs is a finding too."""

from __future__ import annotations

from typing import Any

import pytest

from inflight_scan.kube_score import findings, unexplained

FOUND = [("router", "probes", "no probe"), ("models", "replicas", "few replicas")]


@pytest.mark.parametrize(
    ("explained", "lines"),
    [
        pytest.param({("router", "probes"): "why", ("models", "replicas"): "why"}, [], id="all"),
        pytest.param({("", "probes"): "why", ("", "replicas"): "why"}, [], id="all-whatever-the-object"),
        pytest.param({("", "probes"): "why"}, ["models: few replicas (replicas)"], id="one-is-not"),
        pytest.param(
            {("router", "probes"): "why", ("router", "replicas"): "why"},
            ["models: few replicas (replicas)", "nothing needs the explanation of replicas"],
            id="of-another-object",
        ),
        pytest.param(
            {("", "probes"): "why", ("", "replicas"): "why", ("", "storage"): "why"},
            ["nothing needs the explanation of storage"],
            id="one-too-many",
        ),
    ],
)
def test_each_finding_needs_its_explanation_and_the_other_way_round(
    explained: dict[tuple[str, str], str], lines: list[str]
) -> None:
    assert unexplained(FOUND, explained) == lines


def scored(grade: int, *, skipped: bool = False, **labels: str) -> dict[str, Any]:
    check = {"check": {"id": "probes"}, "skipped": skipped, "grade": grade, "comments": [{"summary": "no probe"}]}
    return {"object_meta": {"name": "it", "labels": labels}, "checks": [check]}


def test_what_is_less_than_fine_is_a_finding() -> None:
    model = {"serving.inflight.dev/modeldeployment": "digits"}
    scores = [scored(10), scored(5), scored(1, skipped=True), scored(1, **model), {"object_meta": {}, "checks": None}]
    assert list(findings(scores)) == [("it", "probes", "no probe"), ("models", "probes", "no probe")]
