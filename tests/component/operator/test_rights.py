"""Every right that the chart gives the operator is used, and none is missing: read from the API server's audit log.

The operator's process runs with nothing but those rights, while a ModelDeployment is born, changes its model and loses
its old revision. The log names the role that allowed each request. A right that nothing used fails the test by name;
drop any other, and the same request is refused, which fails it too.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

import rights
from inflight_cluster import apiserver, credentials, pki, tools
from inflight_cluster.apiserver import Running
from inflight_demo.manifests import NAMESPACE as SYSTEM
from inflight_demo.manifests import render
from inflight_operator.api import names
from inflight_probe.kube import Kube, Object, access, condition
from local_envoy import envoy, free_port
from modeldeployments import install_definition

TENANT = "demo"
USER = f"system:serviceaccount:{SYSTEM}:inflight-operator"
MODES = {
    "the-whole-cluster": (),
    "the-whole-cluster-without-hpas": ("--set", "metricsApi.mode=none"),
    "one-namespace": ("--set", f"watchNamespaces={{{TENANT}}}"),
}
# In a pod these ports are the operator's and the routers' own; on this machine somebody may have them.
LAUNCH = """
import functools, sys
from inflight_operator.api import names
names.HTTP_PORT = int(sys.argv[1])
from inflight_operator import __main__, runtime
runtime.xds.ControlPlane = functools.partial(runtime.xds.ControlPlane, listener_port=int(sys.argv[2]))
__main__.main()
"""


@pytest.fixture
def api() -> Iterator[Running]:
    """An API server of this test's own: the log has to be of one installation."""
    memory = Path("/dev/shm")  # noqa: S108 - for etcd's speed
    directory = Path(tempfile.mkdtemp(prefix="inflight-rights-", dir=memory if memory.is_dir() else None))
    try:
        with apiserver.running(directory, audit=rights.AUDIT_POLICY) as found:
            yield found
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.parametrize("options", [pytest.param(options, id=mode) for mode, options in MODES.items()])
async def test_every_right_is_used_and_none_is_missing(api: Running, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Seen failing with one right too many, and with any of three taken away."""
    objects = [item for item in yaml.load_all(render(*options), yaml.CSafeLoader) if item]
    install(api, objects)
    async with AsyncExitStack() as stack:
        kube = await stage(stack, api, objects, tmp_path)
        await life_of_a_model(kube)
    assert rights.refused(api.audit_log, USER) == set()
    unused = rights.granted(objects) - people(objects) - rights.used(api.audit_log, USER)
    assert unused == set(), "\n".join(sorted(unused))


def people(objects: list[Object]) -> set[str]:
    """Rights of the roles that are bound to nobody by us: they are for people."""
    return rights.granted(item for item in objects if item["metadata"]["name"] in ("inflight-view", "inflight-edit"))


def install(api: Running, objects: list[Object]) -> None:
    """The chart's objects and the tenant's namespace."""
    namespaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in (SYSTEM, TENANT)]
    kubectl = [str(tools.ensure(["kubectl"])["kubectl"]), "--kubeconfig", str(api.kubeconfig)]
    apply = [*kubectl, "apply", "--server-side", "-f", "-"]
    install_definition(api.kubeconfig)
    subprocess.run(apply, input=yaml.safe_dump_all([*namespaces, *objects]), text=True, check=True, capture_output=True)


@dataclass(frozen=True)
class Ports:
    """On this machine."""

    xds: int
    metrics_api: int
    metrics: int
    router: int
    model: int


async def stage(stack: AsyncExitStack, api: Running, objects: list[Object], directory: Path) -> Kube:
    """Operator, router and a model's server at work; cluster-admin's client."""
    ports = Ports(*(free_port() for _ in range(5)))
    kube = await stack.enter_async_context(Kube(access(api.kubeconfig)))
    tls = directory / "tls"
    pki.issue(tls, "tls", pki.authority(tls, "ca"), user="inflight", hosts=[f"inflight-operator.{SYSTEM}.svc"])
    await stack.enter_async_context(model_server(ports.model))
    await stack.enter_async_context(operator(api, objects, directory, ports))
    await stack.enter_async_context(envoy(directory / "router", ports.xds, tls=tls))
    if any(item["kind"] == "APIService" for item in objects):
        await metric_is_asked_for(api, ports.metrics_api)
    return kube


@asynccontextmanager
async def operator(api: Running, objects: list[Object], directory: Path, ports: Ports) -> AsyncIterator[None]:
    """The operator with the chart's settings, known to the API server as its service account."""
    signer = pki.Pair(api.ca, api.ca.with_suffix(".key"))
    kubeconfig = credentials.client(directory / "client", signer, "operator", server=api.url, user=USER)
    (deployment,) = (o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == "inflight-operator")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {
        **os.environ,
        **{item["name"]: item.get("value", SYSTEM) for item in container["env"]},
        "KUBECONFIG": str(kubeconfig),
        "INFLIGHT_TLS_DIR": str(directory / "tls"),
        "INFLIGHT_XDS_PORT": str(ports.xds),
        "INFLIGHT_METRICS_API_PORT": str(ports.metrics_api),
        "INFLIGHT_METRICS_PORT": str(ports.metrics),
    }
    command = (sys.executable, "-c", LAUNCH, str(ports.model), str(ports.router))
    with (directory / "operator.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
    try:
        yield
        assert process.returncode is None, (directory / "operator.log").read_text()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def model_server(port: int) -> AsyncIterator[None]:
    """What the operator asks a model's pod: which file it serves."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"parameters": {"sha256": "0" * 64}})

    application = web.Application()
    application.router.add_get("/v2/models/{name}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def metric_is_asked_for(api: Running, port: int) -> None:
    """By the API server's front proxy, for a user whose rights only the API server knows."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(api.ca.parent / "front-proxy.crt", api.ca.parent / "front-proxy.key")
    url = f"https://127.0.0.1:{port}/apis/custom.metrics.k8s.io/v1beta2/namespaces/{TENANT}/deployments.apps/a/"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http, asyncio.timeout(30):
        status = 0
        while status != 403:
            await asyncio.sleep(0.2)
            try:
                async with http.get(url + names.METRIC, headers={"X-Remote-User": "eve"}) as answer:
                    status = answer.status
            except aiohttp.ClientError:
                continue


async def life_of_a_model(kube: Kube) -> None:
    """Born bigger than one, replaced, and its past forgotten."""
    await kube.apply(model(1))
    first = await revision(kube, other_than="")
    await become_ready(kube, first)
    await is_ready(kube)
    if await kube.get("HorizontalPodAutoscaler", TENANT, first) is None:
        await left_by_a_mode_with_hpas(kube, first)
    await kube.wait("ConfigMap", TENANT, names.digest_name(first), bool, seconds=30)
    await kube.apply(model(2))
    second = await revision(kube, other_than=first)
    await become_ready(kube, second)
    for kind in ("HorizontalPodAutoscaler", "Deployment", "Service", "ControllerRevision"):
        await kube.wait(kind, TENANT, first, lambda found: found is None, seconds=60)
    await is_ready(kube)


def model(version: int) -> Object:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "digits", "namespace": TENANT},
        "spec": {
            "variants": [{"name": "main", "model": {"uri": f"s3://models/digits/{version}"}}],
            "server": {"timeoutMilliseconds": 100},
            "autoscaling": {"minReplicas": 2},
            "revisionHistoryLimit": 0,
        },
    }


async def revision(kube: Kube, other_than: str) -> str:
    """The name of a revision once its Deployment is there."""
    found: list[str] = []

    async def there() -> bool:
        listed = [item["metadata"]["name"] for item in await kube.list_all("Deployment", TENANT)]
        found[:] = [name for name in listed if name != other_than]
        return bool(found)

    await kube.wait_until(there, "the operator makes a Deployment", seconds=60)
    return found[0]


async def become_ready(kube: Kube, name: str) -> None:
    """What the kubelet and Kubernetes' own controllers would do."""
    await kube.wait("Service", TENANT, name, bool, seconds=30)
    labels = (await kube.get("Deployment", TENANT, name) or {})["spec"]["template"]["metadata"]["labels"]
    piece: Object = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": TENANT, "labels": {**labels, names.SERVICE_NAME: name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [f"10.1.0.{n}"], "conditions": {"ready": True}} for n in (1, 2)],
    }
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": TENANT, "labels": labels},
        "spec": {"containers": [{"name": "server", "image": "never-pulled"}]},
    }
    ready: dict[str, Any] = {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    await kube.apply(pod)
    await kube.request(
        "PATCH", f"/api/v1/namespaces/{TENANT}/pods/{name}/status", {"status": ready}, "application/merge-patch+json"
    )
    await kube.apply(piece)


async def left_by_a_mode_with_hpas(kube: Kube, name: str) -> None:
    """An HPA from before the installation was told to scale by itself: it has to go, or both would scale."""
    metadata = (await kube.get("Deployment", TENANT, name) or {})["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "labels", "ownerReferences")}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    hpa = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    await kube.apply({**hpa, "metadata": kept, "spec": {"scaleTargetRef": target, "maxReplicas": 9}})


async def is_ready(kube: Kube) -> None:
    def told(found: Object | None) -> bool:
        return condition(found, "Ready").get("status") == "True"

    await kube.wait(names.KIND, TENANT, "digits", told, seconds=60)
