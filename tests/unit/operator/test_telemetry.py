"""What a scrape of the operator tells of ModelDeployments, and for how long."""

from __future__ import annotations

from typing import Any

from prometheus_client import REGISTRY, generate_latest

from inflight_operator import telemetry
from inflight_operator.observe.store import Store


def resource(version: int, **conditions: tuple[str, str]) -> dict[str, Any]:
    told = [{"type": kind, "status": status, "reason": reason} for kind, (status, reason) in conditions.items()]
    metadata = {"namespace": "demo", "name": "digits", "resourceVersion": str(version)}
    return {"metadata": metadata, "status": {"conditions": told}}


def scraped() -> list[str]:
    lines = generate_latest(REGISTRY).decode().splitlines()
    return [line for line in lines if line.startswith("inflight_operator_condition{")]


def series(kind: str, status: str, reason: str) -> str:
    labels = f'name="digits",namespace="demo",reason="{reason}",status="{status}",type="{kind}"'
    return f"inflight_operator_condition{{{labels}}} 1.0"


def test_conditions_are_told_as_they_are_and_gone_with_their_modeldeployment():
    store = Store()
    with telemetry.exposing(store.conditions):
        assert scraped() == []
        store.put("ModelDeployment", resource(1, Ready=("False", "Starting"), Stalled=("False", "Unblocked")))
        assert scraped() == [series("Ready", "False", "Starting"), series("Stalled", "False", "Unblocked")]
        store.put("ModelDeployment", resource(2, Ready=("True", "Complete")))
        assert scraped() == [series("Ready", "True", "Complete")]
        store.drop("ModelDeployment", resource(3))
        assert scraped() == []


def test_a_tenants_words_make_no_series():
    """A model server chooses the reason of its own failure."""
    store = Store()
    store.put("ModelDeployment", resource(1, Ready=("False", "SecretOf-4711")))
    with telemetry.exposing(store.conditions):
        assert scraped() == [series("Ready", "False", "Failed")]


def test_when_it_is_over_nothing_is_told():
    with telemetry.exposing(lambda: [("demo", "digits", "Ready", "True", "Complete")]):
        assert len(scraped()) == 1
    assert scraped() == []


def test_who_no_longer_leads_says_nothing_more_of_demand_and_replicas():
    telemetry.LEADING.set(1)
    for gauge in (telemetry.DEMAND, telemetry.DESIRED_REPLICAS):
        gauge.labels(namespace="demo", name="digits", variant="stable").set(3)
    telemetry.step_down()
    told = generate_latest(REGISTRY).decode()
    assert "inflight_operator_leading 0.0" in told
    assert 'variant="stable"' not in told
