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

MODES: Final = (
    ("--set", "networkPolicy.enabled=true"),
    ("--set", f"networkPolicy.enabled=true,watchNamespaces={{{NAMESPACE}}}"),
)
"""Options of the chart for an installation in the whole cluster and for one in a namespace."""


def everything() -> str:
    """All of it as YAML; what both modes make alike comes once."""
    charts = (item for options in MODES for item in yaml.load_all(render(*options), yaml.CSafeLoader) if item)
    return "---\n".join({yaml.safe_dump(item): None for item in (*charts, *_models())})


def _models() -> Iterator[Object]:
    """Deployments and Services of the examples, as the operator would apply them."""
    for file in sorted((ROOT / "manifests" / "examples").glob("*.yaml")):
        for resource in yaml.safe_load_all(file.read_text()):
            resource["metadata"] |= {"namespace": "demo", "uid": "0"}
            for variant in parse(resource["metadata"]["name"], resource["spec"]).variants:
                made = build.record(resource, variant, Installation("inflight/model-server:0.1.0"), 1, None)
                name, data = made["metadata"]["name"], made["data"]
                known = Revision(name, variant.name, variant.revision, data, {}, frozenset(), "")
                yield build.deployment(resource, known)
                yield build.service(resource, known)
