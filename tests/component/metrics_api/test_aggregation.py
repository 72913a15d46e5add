"""The whole way of a metric: HPA controller → API server's aggregation layer → metrics API, all of them real.

The operator's side acts with the rights that the chart gives it, under the APIService that it makes.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from inflight_cluster import apiserver, credentials, pki
from inflight_cluster.apiserver import Running
from inflight_demo.manifests import INSTALL, NAMESPACE
from inflight_operator.access import Access
from inflight_operator.installation import aggregation
from inflight_operator.kube.client import Kube as OperatorKube
from inflight_operator.metrics_api import Config, MetricsApi, serve
from inflight_probe.kube import ApiError, Kube, access, condition
from installed import OPERATOR, create

RIGHTS = {"ClusterRole", "ClusterRoleBinding", "RoleBinding"}
GROUP_VERSION = "/apis/custom.metrics.k8s.io/v1beta2"
METRIC = f"{GROUP_VERSION}/namespaces/default/deployments.apps/srv/inflight_requests"

Object = dict[str, Any]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    """An API server with the controllers; its HPA controller looks every second."""
    memory = Path("/dev/shm")  # noqa: S108 - for etcd's speed
    directory = Path(tempfile.mkdtemp(prefix="inflight-aggregation-", dir=memory if memory.is_dir() else None))
    try:
        with apiserver.running(directory, controllers=True, hpa_sync="1s") as found:
            yield found
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@dataclass
class Stage:
    """A cluster whose custom metrics are ours, and the demand that the operator would compute."""

    kube: Kube
    api: MetricsApi
    demand: dict[tuple[str, str], float]

    async def as_user(self, user: str, path: str) -> Object:
        """GET as somebody else."""
        http = self.kube._http  # the client has no other way to impersonate
        assert http
        async with http.get(path, headers={"Impersonate-User": user}) as answer:
            body: Object = await answer.json()
            if answer.status >= 400:
                raise ApiError(answer.status, body["message"])
            return body


@pytest.fixture
async def stage(cluster: Running, tmp_path: Path) -> AsyncIterator[Stage]:
    ca = pki.authority(tmp_path, "ca")
    pki.issue(tmp_path, "tls", ca, user="inflight-operator", hosts=[f"inflight-operator.{NAMESPACE}.svc"])
    signer = pki.Pair(cluster.ca, cluster.ca.with_suffix(".key"))
    kubeconfig = credentials.client(tmp_path / "client", signer, "operator", server=cluster.url, user=OPERATOR)
    demand = {("default", "srv"): 2.0}
    async with Kube(access(cluster.kubeconfig)) as kube:
        installed = [item for item in yaml.safe_load_all(INSTALL.read_text()) if item]
        await create(kube, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        for item in installed:
            if item["kind"] in RIGHTS:
                await create(kube, item)
        operator = await OperatorKube.connect(kubeconfig)
        asked = Access(operator)
        config = Config(tmp_path, port=0, host="127.0.0.1", refresh_seconds=0.2)
        api = await serve(config, lambda ns, name: demand.get((ns, name)), asked.trust, asked.review)
        service = aggregation.manifest(NAMESPACE, ca.certificate.read_bytes())
        await register(kube, service, api.port)
        yield Stage(kube, api, demand)
        await unregister(kube, service)
        await api.stop()
        await operator.close()


async def register(kube: Kube, service: Object, port: int) -> None:
    """The operator's APIService, on this machine's port; returns when the API server finds it available."""
    name = service["spec"]["service"]["name"]
    alias = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    }
    await create(kube, alias)
    service["spec"]["service"]["port"] = port
    await create(kube, service)
    path = f"/apis/apiregistration.k8s.io/v1/apiservices/{service['metadata']['name']}"

    async def available() -> bool:
        return condition(await kube.request("GET", path), "Available").get("status") == "True"

    await kube.wait_until(available, "the APIService is available", seconds=30)


async def unregister(kube: Kube, service: Object) -> None:
    await kube.request("DELETE", f"/apis/apiregistration.k8s.io/v1/apiservices/{service['metadata']['name']}")
    await kube.delete("Service", NAMESPACE, service["spec"]["service"]["name"])


async def test_the_metric_is_read_through_the_api_server(stage: Stage) -> None:
    await answered(stage)
    answer = await stage.kube.request("GET", METRIC)
    assert [item["value"] for item in answer["items"]] == ["2000m"]
    assert answer["items"][0]["describedObject"]["name"] == "srv"


async def test_discovery_through_the_api_server_names_the_metric(stage: Stage) -> None:
    resources = (await stage.kube.request("GET", GROUP_VERSION))["resources"]
    assert [item["name"] for item in resources] == ["deployments.apps/inflight_requests"]


async def test_a_user_without_the_right_is_refused(stage: Stage) -> None:
    with pytest.raises(ApiError) as refused:
        await stage.as_user("eve", METRIC)
    assert refused.value.status == 403


async def test_a_reader_of_one_namespace_reads_that_one(stage: Stage) -> None:
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "ada", "namespace": "default"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "inflight-view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ada"}],
    }
    await create(stage.kube, binding)
    stage.demand["other", "srv"] = 1.0

    async def reads() -> bool:
        try:
            return bool((await stage.as_user("ada", METRIC))["items"])
        except ApiError:
            return False

    await stage.kube.wait_until(reads, "the new right is in force", seconds=15)
    with pytest.raises(ApiError) as refused:
        await stage.as_user("ada", METRIC.replace("default", "other"))
    assert refused.value.status == 403


async def test_without_the_aggregation_layer_nobody_is_believed(stage: Stage) -> None:
    headers = {"X-Remote-User": "system:admin", "X-Remote-Group": "system:masters"}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as http,
        http.get(f"https://127.0.0.1:{stage.api.port}{METRIC}", headers=headers) as answer,
    ):
        assert answer.status == 401


async def test_the_hpa_follows_the_demand_and_holds_without_data(stage: Stage) -> None:
    kube = stage.kube
    await kube.apply(DEPLOYMENT)
    await kube.apply(HPA)
    try:
        stage.demand["default", "srv"] = 7.2
        await kube.wait("Deployment", "default", "srv", lambda found: replicas(found) == 4, seconds=30)
        del stage.demand["default", "srv"]
        held = await kube.wait(
            "HorizontalPodAutoscaler", "default", "srv", lambda found: scaling(found)["status"] == "False", seconds=30
        )
        assert "no load data for Deployment default/srv; the HPA holds its replicas" in scaling(held)["message"]
        await asyncio.sleep(3)  # three looks of the HPA
        assert replicas(await kube.get("Deployment", "default", "srv")) == 4
        stage.demand["default", "srv"] = 1.0
        await kube.wait("Deployment", "default", "srv", lambda found: replicas(found) == 1, seconds=30)
    finally:
        await kube.delete("HorizontalPodAutoscaler", "default", "srv")
        await kube.delete("Deployment", "default", "srv")


async def answered(stage: Stage) -> None:
    """The server learns whom to trust from the cluster a moment after it starts."""

    async def answers() -> bool:
        try:
            return bool(await stage.kube.request("GET", METRIC))
        except ApiError:
            return False

    await stage.kube.wait_until(answers, "the metric is answered", seconds=15)


def replicas(found: Object | None) -> int:
    return int((found or {})["spec"]["replicas"])


def scaling(found: Object | None) -> Object:
    return {"status": "", "message": "", **condition(found, "ScalingActive")}


TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "srv"}
DEPLOYMENT: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "srv", "namespace": "default"},
    "spec": {
        "selector": {"matchLabels": {"app": "srv"}},
        "template": {
            "metadata": {"labels": {"app": "srv"}},
            "spec": {"containers": [{"name": "server", "image": "never-pulled"}]},
        },
    },
}
HPA: Object = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "srv", "namespace": "default"},
    "spec": {
        "scaleTargetRef": TARGET,
        "minReplicas": 1,
        "maxReplicas": 10,
        "metrics": [
            {
                "type": "Object",
                "object": {
                    "describedObject": TARGET,
                    "metric": {"name": "inflight_requests"},
                    "target": {"type": "AverageValue", "averageValue": "2"},
                },
            }
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    },
}
