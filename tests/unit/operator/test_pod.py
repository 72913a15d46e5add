"""The pod of a model: whatever its owner asks for, it passes the restricted standard and holds no API token."""

from __future__ import annotations

from typing import Any

import pytest

from inflight_operator.api import spec
from inflight_operator.desired.pod import Installation, template

MODELS: dict[str, dict[str, Any]] = {
    "a-file": {"uri": "s3://models/digits/1"},
    "a-file-known-by-its-digest": {"uri": "s3://models/digits/1", "sha256": "0" * 64},
    "python-code": {"uri": "s3://models/m.py", "format": "python", "entrypoint": "m:Model"},
    "with-a-secret": {"uri": "s3://models/a", "storage": {"secretRef": {"name": "keys"}}},
    "a-claim": {"uri": "pvc://models/digits/1"},
    "an-image": {"uri": "image://registry.example/digits:1"},
}
SERVERS: dict[str, dict[str, Any]] = {
    "as-it-is": {},
    "an-account-of-its-own": {"serviceAccountName": "model-reader"},
    "an-image-of-its-own": {"image": "registry.example/server:1"},
    "much-of-its-own": {
        "podTemplate": {
            "volumes": [{"name": "keys", "secret": {"secretName": "keys"}}],
            "volumeMounts": [{"name": "keys", "mountPath": "/keys"}],
            "env": [{"name": "A", "value": "b"}],
            "tolerations": [{"operator": "Exists"}],
        }
    },
}
ALLOWED_VOLUMES = {"configMap", "emptyDir", "secret", "persistentVolumeClaim", "projected", "downwardAPI", "csi"}
"""Those of the restricted Pod Security Standard that can be asked for here."""


@pytest.mark.parametrize("model", [pytest.param(model, id=name) for name, model in MODELS.items()])
@pytest.mark.parametrize("server", [pytest.param(server, id=name) for name, server in SERVERS.items()])
def test_it_is_restricted_in_every_container(model: dict[str, Any], server: dict[str, Any]) -> None:
    raw = {"variants": [{"name": "v", "model": model}], "server": server}
    (variant,) = spec.parse("m", raw).variants
    pod = template("m", variant, Installation("inflight/model-server:test"))["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(pod)
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= ALLOWED_VOLUMES
    assert len(pod.get("initContainers", [])) == model["uri"].startswith("image://")
    for container in (*pod["containers"], *pod.get("initContainers", [])):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not [port for port in container.get("ports", []) if "hostPort" in port]
