"""ModelDeployments for tests: builders, and a small client of a real API server that answers about them."""

from __future__ import annotations

import copy
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from inflight_cluster import tools

DEFINITION = Path(__file__).parents[2] / "charts" / "inflight" / "files" / "crd.yaml"
RESOURCE = "/apis/serving.inflight.dev/v1alpha1/namespaces/{}/modeldeployments"

Object = dict[str, Any]


def minimal(name: str = "digits", uri: str = "s3://models/digits/1/model.onnx") -> Object:
    """The least that a user has to say."""
    return {
        "apiVersion": "serving.inflight.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"variants": [{"name": "stable", "model": {"uri": uri}}]},
    }


def split(*weights: int | None) -> Object:
    """Variants a, b, c... with these weights; None: without one."""
    made = minimal()
    made["spec"]["variants"] = [
        {"name": chr(97 + i), "model": {"uri": f"s3://models/{i}"}, **({} if weight is None else {"weight": weight})}
        for i, weight in enumerate(weights)
    ]
    return made


def edited(path: str, value: Any, base: Object | None = None) -> Object:
    """A copy of `base` (default: minimal) with `value` at a path such as spec.variants.0.weight."""
    made = copy.deepcopy(base or minimal())
    *steps, last = path.split(".")
    here: Any = made
    for step in steps:
        here = here[int(step)] if isinstance(here, list) else here.setdefault(step, {})
    if isinstance(here, list):
        here[int(last)] = value
    else:
        here[last] = value
    return made


@dataclass(frozen=True)
class Api:
    """Creates ModelDeployments on a real API server, as kubectl does: unknown fields are errors."""

    http: httpx.Client

    def create(self, resource: Object, *, dry: bool = True) -> httpx.Response:
        """The answer to the creation of `resource`, stored only if not `dry`."""
        query = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry else {})}
        return self.http.post(RESOURCE.format(resource["metadata"]["namespace"]), json=resource, params=query)


def install_definition(kubeconfig: Path) -> None:
    """Apply the chart's CustomResourceDefinition and wait until it is served.

    Asked by using it: `kubectl wait` fails on a definition that has no conditions yet.
    """
    kubectl = [str(tools.ensure(["kubectl"])["kubectl"]), "--kubeconfig", str(kubeconfig)]
    subprocess.run([*kubectl, "apply", "--server-side", "-f", str(DEFINITION)], check=True, capture_output=True)
    deadline = time.monotonic() + 60
    while subprocess.run([*kubectl, "get", "modeldeployments", "-A"], check=False, capture_output=True).returncode:
        assert time.monotonic() < deadline, (
            "the API server does not serve ModelDeployments a minute after the definition"
        )
        time.sleep(0.2)
