"""What a revision's pod is given to fetch its model with, by where that lies."""

from __future__ import annotations

from typing import Any

import pytest

from inflight_operator.api.spec import parse
from inflight_operator.desired import pod


def rendered_template(model: dict[str, Any], **server: Any) -> dict[str, Any]:
    raw = {"variants": [{"name": "stable", "model": {"sha256": "0" * 64, **model}}], "server": server}
    (variant,) = parse("digits", raw).variants
    return pod.template("digits", variant, pod.Installation("server:1"))


def rendered(model: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = rendered_template(model)["spec"]
    return spec


def environment(spec: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in spec["containers"][0]["env"]}


def own_volumes(spec: dict[str, Any]) -> list[Any]:
    return [volume for volume in spec["volumes"] if volume["name"] not in ("models", "tmp")]


def test_a_claim_is_mounted_whole_and_read_only():
    spec = rendered({"uri": "pvc://shared.models/digits/1/model.onnx"})
    assert own_volumes(spec) == [
        {"name": "claim", "persistentVolumeClaim": {"claimName": "shared.models", "readOnly": True}}
    ]
    mount = {"name": "claim", "mountPath": "/etc/inflight/claim", "readOnly": True}
    assert mount in spec["containers"][0]["volumeMounts"]
    assert environment(spec)["INFLIGHT_CLAIM_DIR"] == mount["mountPath"]


@pytest.mark.parametrize("uri", ["s3://models/1", "gs://models/1", "az://account/models/1"])
def test_a_stores_secret_is_mounted_and_never_in_the_environment(uri):
    spec = rendered({"uri": uri, "storage": {"secretRef": {"name": "keys"}}})
    mounted = {"secretName": "keys", "optional": True, "defaultMode": 0o440}
    assert own_volumes(spec) == [{"name": "storage-secret", "secret": mounted}], "the server says it better if it lacks"
    assert environment(spec)["INFLIGHT_STORAGE_SECRET_DIR"] == "/etc/inflight/storage"
    assert all("valueFrom" not in variable for variable in spec["containers"][0]["env"])


@pytest.mark.parametrize(
    ("model", "account", "metadata", "label"),
    [
        pytest.param({"uri": "gs://models/1"}, "reader", "metadata", None, id="a named account at Google"),
        pytest.param({"uri": "gs://models/1"}, None, None, None, id="no account named: unsigned"),
        pytest.param(
            {"uri": "gs://models/1", "storage": {"secretRef": {"name": "key"}}},
            "reader",
            None,
            None,
            id="a Secret wins",
        ),
        pytest.param({"uri": "az://account/models/1"}, "reader", None, "true", id="a named account at Azure"),
        pytest.param({"uri": "az://account/models/1"}, None, None, None, id="no account named at Azure"),
        pytest.param({"uri": "s3://models/1"}, "reader", None, None, id="AWS needs no asking"),
        pytest.param({"uri": "https://models.example/1"}, "reader", None, None, id="no store"),
    ],
)
def test_clouds_are_asked_for_an_identity_only_for_a_named_account(model, account, metadata, label):
    template = rendered_template(model, **({"serviceAccountName": account} if account else {}))
    assert environment(template["spec"]).get("INFLIGHT_STORAGE_IDENTITY") == metadata
    assert template["metadata"]["labels"].get("azure.workload.identity/use") == label
    assert template["spec"]["automountServiceAccountToken"] is False
