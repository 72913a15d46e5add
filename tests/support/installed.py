"""What the chart installs, on an API server without nodes: rights, Services, nothing that runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from inflight_demo.manifests import NAMESPACE, render
from inflight_probe.kube import ApiError, Kube

Object = dict[str, Any]
OPERATOR = f"system:serviceaccount:{NAMESPACE}:inflight-operator"
_WANTED = {"Namespace", "ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Service"}


async def install(kube: Kube, *options: str) -> None:
    """Rights and Services of the chart with these `helm template` options, in its namespace."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    for item in [namespace, *yaml.safe_load_all(render("--skip-tests", *options))]:
        if item and item["kind"] in _WANTED:
            await create(kube, item)


async def create(kube: Kube, item: Object) -> None:
    """POST an object; one that exists already is fine."""
    version, metadata = item["apiVersion"], item["metadata"]
    root = "/api/v1" if version == "v1" else f"/apis/{version}"
    inside = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    plural = item["kind"].lower() + "s"
    try:
        await kube.request("POST", f"{root}{inside}/{plural}", item)
    except ApiError as error:
        if error.status != 409:
            raise


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """What the chart tells an operator, but for `more`."""
    told = {
        "INFLIGHT_NAMESPACE": NAMESPACE,
        "INFLIGHT_MODEL_SERVER_IMAGE": "inflight/model-server:test",
        "INFLIGHT_CERTIFICATE_LIFETIME": "1h",
    }
    return told | dict(more)
