"""Rights granted and rights used are spelled alike, whatever the API server's log looks like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rights import granted, refused, used

ME = "system:serviceaccount:inflight-system:inflight-operator"
CLUSTER = 'RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "inflight-operator" to ServiceAccount "x/y"'
INSIDE = 'RBAC: allowed by RoleBinding "b/demo" of Role "inflight-operator" to ServiceAccount "x/y"'


def event(verb: str, reason: str, code: int = 200, decision: str = "allow", user: str = ME, **ref: str) -> str:
    told = {"authorization.k8s.io/decision": decision, "authorization.k8s.io/reason": reason}
    found = {"verb": verb, "user": {"username": user}, "objectRef": ref, "annotations": told}
    return json.dumps({**found, "responseStatus": {"code": code}})


def role(kind: str, *rules: dict[str, Any], **metadata: str) -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": "inflight-operator", **metadata}, "rules": list(rules)}


PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
SCALE = {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["patch"]}
KEYS = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["inflight-tls"]}
MAPS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch"]}
POD = {"resource": "pods", "namespace": "demo"}


@pytest.mark.parametrize(
    ("given", "log", "unused"),
    [
        pytest.param(role("ClusterRole", PODS), [event("list", CLUSTER, **POD)], [], id="used"),
        pytest.param(role("ClusterRole", PODS), [], ["ClusterRole inflight-operator: list pods"], id="unused"),
        pytest.param(
            role("ClusterRole", PODS),
            [event("list", CLUSTER, user="somebody", **POD)],
            ["ClusterRole inflight-operator: list pods"],
            id="used-by-somebody-else",
        ),
        pytest.param(
            role("ClusterRole", PODS),
            [event("list", INSIDE, **POD)],
            ["ClusterRole inflight-operator: list pods"],
            id="by-another-role",
        ),
        pytest.param(role("Role", PODS, namespace="demo"), [event("list", INSIDE, **POD)], [], id="inside"),
        pytest.param(
            role("Role", PODS, namespace="other"),
            [event("list", INSIDE, **POD)],
            ["Role other/inflight-operator: list pods"],
            id="inside-another",
        ),
        pytest.param(
            role("ClusterRole", SCALE),
            [event("patch", CLUSTER, apiGroup="apps", resource="deployments", subresource="scale")],
            [],
            id="subresource",
        ),
        pytest.param(
            role("ClusterRole", KEYS),
            [event("get", CLUSTER, resource="secrets", name="inflight-tls")],
            [],
            id="by-its-name",
        ),
        pytest.param(
            role("ClusterRole", MAPS),
            [event("patch", CLUSTER, 201, resource="configmaps", name="a")],
            [],
            id="applied-and-so-created",
        ),
        pytest.param(
            role("ClusterRole", MAPS),
            [event("patch", CLUSTER, 200, resource="configmaps", name="a")],
            ["ClusterRole inflight-operator: create configmaps"],
            id="applied-to-what-was-there",
        ),
    ],
)
def test_what_is_granted_and_not_used_is_named(
    tmp_path: Path, given: dict[str, Any], log: list[str], unused: list[str]
) -> None:
    file = tmp_path / "audit.log"
    file.write_text("\n".join(log))
    assert sorted(granted([given]) - used(file, ME)) == unused


def test_what_was_refused_is_named_with_where(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    file.write_text(event("list", "", 403, "forbid", apiGroup="apps", resource="deployments"))
    assert refused(file, ME) == {"list apps/deployments in the whole cluster"}
    assert used(file, ME) == set()
