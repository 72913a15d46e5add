"""The CRD and the operator's parser say the same: same defaults, same fields, and every field ends somewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from inflight_operator.api import names, spec, traffic
from inflight_operator.desired.pod import Installation, template

CRD = yaml.safe_load((Path(__file__).parents[2] / "charts/inflight/files/crd.yaml").read_text())
(VERSION,) = CRD["spec"]["versions"]
SPEC = VERSION["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
VARIANT = SPEC["variants"]["items"]["properties"]


def defaults(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: field["default"] for name, field in schema["properties"].items() if "default" in field}


@pytest.mark.parametrize(
    ("schema", "parser"),
    [
        pytest.param(SPEC["server"], spec.SERVER_DEFAULTS, id="server"),
        pytest.param(SPEC["autoscaling"], spec.AUTOSCALING_DEFAULTS, id="autoscaling"),
        pytest.param(VARIANT["model"], spec.MODEL_DEFAULTS, id="model"),
        pytest.param(SPEC["traffic"]["properties"]["mirror"], traffic.MIRROR_DEFAULTS, id="mirror"),
        pytest.param(SPEC["traffic"]["properties"]["retries"], traffic.RETRY_DEFAULTS, id="retries"),
        pytest.param(SPEC["traffic"]["properties"]["hedging"], traffic.HEDGING_DEFAULTS, id="hedging"),
    ],
)
def test_defaults_are_the_same(schema, parser):
    assert defaults(schema) == dict(parser)


def test_the_history_limit_is_the_same():
    assert SPEC["revisionHistoryLimit"]["default"] == spec.REVISION_HISTORY_LIMIT


def test_a_variants_own_settings_have_no_defaults_or_they_would_hide_those_of_all():
    assert defaults(VARIANT["server"]) == {}
    assert set(VARIANT["server"]["properties"]) == set(SPEC["server"]["properties"])


def test_names_are_the_same():
    assert (CRD["spec"]["group"], VERSION["name"], CRD["spec"]["names"]["plural"], CRD["spec"]["names"]["kind"]) == (
        names.GROUP,
        names.VERSION,
        names.PLURAL,
        names.KIND,
    )


SAMPLES: dict[str, Any] = {
    "concurrency": 7,
    "maxQueue": 77,
    "timeoutMilliseconds": 77777,
    "isolation": "process",
    "batching": {"maxRows": 7, "maxDelayMilliseconds": 77},
    "cache": {"maxMegabytes": 77, "ttlSeconds": 777},
    "image": "registry.example/server:7",
    "resources": {"requests": {"cpu": "777m"}},
    "serviceAccountName": "account-7",
    "podTemplate": {"nodeSelector": {"seven": "7"}},
    "uri": "s3://seven/7",
    "sha256": "7" * 64,
    "format": "skops",
    "entrypoint": "seven:Seven",
    "storage": {"endpoint": "http://seven:7", "region": "r-7", "secretRef": {"name": "secret-7"}},
    "nodeSelector": {"seven": "7"},
    "tolerations": [{"key": "seven", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 7}],
    "imagePullSecrets": [{"name": "pull-7"}],
    "volumes": [{"name": "volume-7", "emptyDir": {}}],
    "volumeMounts": [{"name": "volume-7", "mountPath": "/seven"}],
    "env": [{"name": "SEVEN", "value": "7"}],
}
POD = VARIANT["server"]["properties"]["podTemplate"]["properties"]


@pytest.mark.parametrize(
    ("where", "field"),
    [
        *(("server", name) for name in SPEC["server"]["properties"]),
        *(("model", name) for name in VARIANT["model"]["properties"]),
        *(("podTemplate", name) for name in POD),
    ],
)
def test_every_field_that_a_user_may_set_reaches_the_pod(where, field):
    value = SAMPLES[field]
    plain = {"variants": [{"name": "v", "model": {"uri": "s3://b/k"}}], "server": {}}
    changed: Any = {"variants": [{"name": "v", "model": {"uri": "s3://b/k"}}], "server": {}}
    target = {"server": changed["server"], "model": changed["variants"][0]["model"]}.get(where)
    if target is None:
        changed["server"]["podTemplate"] = {field: value}
    else:
        target[field] = value

    def pod(raw: dict[str, Any]) -> dict[str, Any]:
        (variant,) = spec.parse("m", raw).variants
        return template("m", variant, Installation("inflight/model-server:test"))["spec"]

    assert pod(changed) != pod(plain)
