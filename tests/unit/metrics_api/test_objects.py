"""What HPAs and people read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from inflight_operator.metrics_api import objects

AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        pytest.param(0.0, "0m", id="idle"),
        pytest.param(2.7, "2700m", id="fraction"),
        pytest.param(0.0004, "0m", id="less-than-a-thousandth"),
        pytest.param(123456.789, "123456789m", id="many"),
    ],
)
def test_in_flight_requests_are_told_in_thousandths(value: float, told: str) -> None:
    assert objects.metric_value("demo", "digits", value, AT, 6)["items"][0]["value"] == told


def test_a_metric_says_of_what_and_when() -> None:
    assert objects.metric_value("demo", "digits-stable-0123abcd", 2.7, AT, 6) == {
        "kind": "MetricValueList",
        "apiVersion": "custom.metrics.k8s.io/v1beta2",
        "metadata": {},
        "items": [
            {
                "describedObject": {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "namespace": "demo",
                    "name": "digits-stable-0123abcd",
                },
                "metric": {"name": "inflight_requests"},
                "timestamp": "2026-01-02T03:04:05Z",
                "windowSeconds": 6,
                "value": "2700m",
            }
        ],
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_never_told(value: float) -> None:
    with pytest.raises((ValueError, OverflowError)):
        objects.metric_value("demo", "digits", value, AT, 6)
