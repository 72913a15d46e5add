"""The health check for Argo CD, run in Argo CD's Lua (5.1) over statuses that the operator itself makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lupa.lua51
import pytest
import yaml

from inflight_operator.api import names
from inflight_operator.api.conditions import Condition, Reason
from inflight_operator.api.world import Failure
from inflight_operator.decide import health
from inflight_operator.decide.health import Facts, Scaling, VariantFacts
from inflight_operator.desired import status

MANIFEST = Path(__file__).parents[2] / "manifests" / "argocd-health.yaml"
KEY = f"resource.customizations.health.{names.GROUP}_{names.KIND}"
GENERATION = 7
BROKEN = Failure("DigestMismatch", "expected aa, got bb")


def variant(name: str = "stable", **changes: Any) -> VariantFacts:
    known: dict[str, Any] = {
        "name": name, "weight": 100, "effective": 100, "serving": "aaaa", "target": "aaaa",
        "replicas": 2, "ready": 2, "target_ready": 2, "needed": 1, "failure": None,
    }  # fmt: skip
    return VariantFacts(**{**known, **changes})


def told(*variants: VariantFacts, **changes: Any) -> dict[str, Any]:
    """The status that the operator writes when these are the facts."""
    known: dict[str, Any] = {
        "acknowledged": True, "rejected": None, "waiting": (), "draining": (),
        "scaling": [Scaling("a", active=True, message="")],
    }  # fmt: skip
    seen = variants or (variant(),)
    return written(health.decide(Facts(variants=seen, **{**known, **changes})), seen)


def written(conditions: tuple[Condition, ...], variants: tuple[VariantFacts, ...] = ()) -> dict[str, Any]:
    resource = {"metadata": {"name": "digits", "namespace": "demo", "generation": GENERATION}}
    return status.build(resource, conditions, variants, {}, "2026-01-01T00:00:00Z", tls=False)


def judge(seen: Mapping[str, Any] | None) -> tuple[str, str]:
    """(status, message) as Argo CD gets them."""
    lua = lupa.lua51.LuaRuntime()
    resource: dict[str, Any] = {"metadata": {"name": "digits", "namespace": "demo", "generation": GENERATION}}
    if seen is not None:
        resource["status"] = seen
    lua.globals().obj = lua.table_from(resource, recursive=True)
    answer = lua.execute(yaml.safe_load(MANIFEST.read_text())["data"][KEY])
    return answer["status"], answer["message"]


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        pytest.param(None, "Progressing", "has not looked", id="just made"),
        pytest.param(told() | {"observedGeneration": 6}, "Progressing", "has not looked", id="just changed"),
        pytest.param(told(), "Healthy", "stable 2/2 at 100 %", id="all is well"),
        pytest.param(told(draining=("old",)), "Healthy", "stable", id="an old revision finishes its requests"),
        pytest.param(
            told(scaling=[Scaling("a", active=False, message="no data")]), "Healthy", "stable", id="scaling is held"
        ),
        pytest.param(
            told(variant(ready=0)), "Progressing", "No pod of any variant is ready", id="first pods on their way"
        ),
        pytest.param(
            told(variant(target="bbbb", target_ready=0)), "Progressing", "bbbb has 0 of 1 pods", id="rolling out"
        ),
        pytest.param(told(waiting=("candidate",)), "Progressing", "Weight moves", id="weights move"),
        pytest.param(told(acknowledged=False), "Progressing", "Not every router", id="routers are silent"),
        pytest.param(
            told(variant(target="bbbb", target_ready=0, failure=BROKEN)),
            "Degraded",
            "DigestMismatch: expected aa, got bb",
            id="the new revision can't start, the old one serves",
        ),
        pytest.param(told(rejected="bad route"), "Degraded", "bad route", id="a router refused its routes"),
        pytest.param(
            written(health.refused(Reason.INVALID_SPEC, "spec.variants: weights must sum to 100")),
            "Degraded",
            "weights must sum to 100",
            id="the spec is wrong",
        ),
        pytest.param(
            told(variant(replicas=0, ready=0)), "Suspended", "scaled to zero", id="scaled to zero by hand"
        ),
        pytest.param(
            told(variant(replicas=0, ready=0), variant("candidate")), "Progressing", "stable", id="one of two is"
        ),
    ],
)  # fmt: skip
def test_health(seen, verdict, words):
    status_told, message = judge(seen)
    assert status_told == verdict
    assert words in message
