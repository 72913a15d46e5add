"""What ends up in a cluster, for scanners: everything the chart can render, and the pods that the operator makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import yaml

from inflight_demo.manifests import NAMESPACE, ROOT, render
from inflight_operator.api.spec import parse
from inflight_operator.api.world import Revision
from inflight_operator.desired import revision as build
from inflight_operator.desired.pod import Installation

Object = dict[str, Any]

MODES: Final = ((), ("--set", f"watchNamespaces={{{NAMESPACE}}}"))
"""Options of the chart for an installation in the whole cluster and for one in a namespace."""


EXPLAINED: Final = {
    "container-ephemeral-storage-request-and-limit": "the root is read-only and the chart's volumes are bounded; a"
    " model's size is its owner's to bound, by the namespace's LimitRange and ResourceQuota",
    "container-image-pull-policy": "pin images by digest instead, which also says what is run",
    "deployment-has-host-podantiaffinity": "routers are spread by topologySpreadConstraints",
    "pod-networkpolicy": "not every cluster enforces them: they are an option of the chart",
}
"""Findings that are meant, by check, with the reason. No CPU limit is meant too: throttling makes a tail of latency."""
EXPLAINED_OF: Final = {
    "inflight-selftest": {"pod-probes": "it runs once and ends"},
    "models": {
        "deployment-replicas": "the HPA's, within the bounds that the user has set",
        "deployment-has-poddisruptionbudget": "a budget for one replica would keep nodes from being drained",
    },
}
"""The same for one object, or for the Deployments of models."""


def everything() -> str:
    """All of it as YAML; what both modes make alike comes once."""
    charts = (item for options in MODES for item in yaml.load_all(render(*options), yaml.CSafeLoader) if item)
    marked = [*(_marked(item, item["metadata"]["name"]) for item in charts), *models()]
    return "---\n".join({yaml.safe_dump(item): None for item in marked})


def models() -> Iterator[Object]:
    """Deployments and Services of the examples, as the operator would apply them."""
    for file in sorted((ROOT / "manifests" / "examples").glob("*.yaml")):
        for resource in yaml.safe_load_all(file.read_text()):
            resource["metadata"] |= {"namespace": "demo", "uid": "0"}
            for variant in parse(resource["metadata"]["name"], resource["spec"]).variants:
                made = build.record(resource, variant, Installation("inflight/model-server:0.1.0"), 1, None)
                name, data = made["metadata"]["name"], made["data"]
                known = Revision(name, variant.name, variant.revision, data, {}, frozenset(), "")
                yield _marked(build.deployment(resource, known), "models")
                yield build.service(resource, known)


def _marked(item: Object, key: str) -> Object:
    """With the checks that do not concern a pod, as the scanner wants to be told."""
    if item["kind"] in ("Deployment", "Pod") and key in EXPLAINED_OF:
        annotations = item["metadata"].setdefault("annotations", {})
        annotations["kube-score/ignore"] = ",".join(EXPLAINED_OF[key])
    return item
