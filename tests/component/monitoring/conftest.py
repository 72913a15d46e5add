"""One installation without nodes, watched by a real Prometheus, shared by this folder's tests."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inflight_cluster import apiserver, tools
from inflight_operator.api import names
from modeldeployments import edited, install_definition, minimal
from monitoring import NOWHERE, SYSTEM, Prometheus, World, until

DIGEST = "0" * 64
"""Given, so that no pod is ever asked for it: the addresses of these pods are nobody's."""


@dataclass(frozen=True)
class Cluster:
    """The API server as a user sees it, and the test in the kubelet's place."""

    kubectl: tuple[str, ...]

    def apply(self, resource: dict[str, Any]) -> None:
        self._run("apply", "--server-side", "-f", "-", stdin=json.dumps(resource))

    def deploy(self, name: str) -> None:
        """A ModelDeployment of one variant."""
        self.apply(edited("metadata.name", name, edited("spec.variants.0.model.sha256", DIGEST, minimal())))

    def delete(self, name: str) -> None:
        """It, and, as the garbage collector would, what it owned."""
        kinds = "modeldeployment,deployment,service,endpointslice,controllerrevision"
        self._run("delete", "modeldeployment", name)
        self._run("delete", kinds, "-l", f"{names.MODEL_DEPLOYMENT}={name}")

    def give_pods(self, name: str) -> None:
        """One ready endpoint for each revision's Service."""

        def services() -> list[dict[str, Any]]:
            found = self._run("get", "service", "-o", "json", "-l", f"{names.MODEL_DEPLOYMENT}={name},{names.VARIANT}")
            items: list[dict[str, Any]] = json.loads(found)["items"]
            return items

        for service in until(services, f"a Service of {name}"):
            metadata = service["metadata"]
            self.apply(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "name": metadata["name"],
                        "namespace": metadata["namespace"],
                        "labels": {**metadata["labels"], names.SERVICE_NAME: metadata["name"]},
                    },
                    "addressType": "IPv4",
                    "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
                    "endpoints": [{"addresses": [NOWHERE], "conditions": {"ready": True}}],
                }
            )

    def _run(self, *arguments: str, stdin: str | None = None) -> str:
        command = [*self.kubectl, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=True).stdout


def _kubectl(kubeconfig: Path) -> Cluster:
    return Cluster((str(tools.ensure(["kubectl"])["kubectl"]), "--kubeconfig", str(kubeconfig)))


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108 - for etcd's speed
    made = Path(tempfile.mkdtemp(prefix="inflight-watch-", dir=memory if memory.is_dir() else None))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def world(directory: Path) -> Iterator[World]:
    """Operator, router and Prometheus: nothing is deployed yet."""
    with ExitStack() as stack:
        api = stack.enter_context(apiserver.running(directory / "api"))
        install_definition(api.kubeconfig)
        kubectl = _kubectl(api.kubeconfig)
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
        metadata = {"name": "inflight-operator", "namespace": SYSTEM}
        ports = [{"port": 18000}]
        kubectl.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}})
        prometheus = Prometheus(directory / "prometheus")
        made = World(directory, api.kubeconfig, prometheus, stack)
        made.run("prometheus", prometheus.command)
        tls = made.certificates("tls")
        made.operator(tls)
        made.router("router-0", tls)
        yield made


@pytest.fixture(scope="module")
def cluster(world: World) -> Cluster:
    return _kubectl(world.kubeconfig)


@pytest.fixture
def deployed(world: World, cluster: Cluster) -> World:
    """One ModelDeployment is Ready and scaled."""
    cluster.deploy("digits")
    cluster.give_pods("digits")
    fine = 'inflight_operator_condition{name="digits",type=~"Ready|ScalingActive",status="True"}'
    until(lambda: len(world.prometheus.query(fine)) == 2, "digits is Ready")
    return world


@pytest.fixture
def well(deployed: World) -> World:
    """And no alert fires."""
    until(lambda: not deployed.prometheus.firing(), "no alert fires")
    return deployed
