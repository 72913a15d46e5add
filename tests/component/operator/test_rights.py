"""Every right that the chart gives the operator is used, and none is missing: read from the API server's audit log.

The operator's process runs with nothing but those rights, while a ModelDeployment is born, changes its model and loses
its old revision. The log names the role that allowed each request. A right that nothing used fails the test by name;
drop any other, and the same request is refused, which fails it too.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

import rights
from inflight_cluster import apiserver, credentials, pki, tools
from inflight_cluster.apiserver import Running
from inflight_demo.manifests import NAMESPACE as SYSTEM
from inflight_demo.manifests import render
from inflight_operator.api import names
from inflight_operator.decide import leaving
from inflight_operator.decide.rotation import AUTHORITY_LIFETIMES
from inflight_operator.installation import aggregation, issue
from inflight_operator.installation.certificates import AUTHORITY, ROUTERS
from inflight_operator.installation.lastgood import NAME as LAST_GOOD
from inflight_probe.kube import ApiError, Kube, Object, access, condition, path
from local_envoy import envoy
from modeldeployments import install_definition
from operator_process import LIFETIME_SECONDS, USER, Ports, model_server, operator
from ports import free_port

TENANT = "demo"


@dataclass(frozen=True)
class Mode:
    """A way of installing, by options of the chart."""

    options: tuple[str, ...]
    metrics_api: bool
    whole_cluster: bool


MODES = {
    "the-whole-cluster": Mode((), metrics_api=True, whole_cluster=True),
    "the-whole-cluster-with-an-adapter": Mode(
        ("--set", "metricsApi.mode=prometheus-adapter"), metrics_api=False, whole_cluster=True
    ),
    "the-whole-cluster-without-hpas": Mode(("--set", "metricsApi.mode=none"), metrics_api=False, whole_cluster=True),
    "one-namespace": Mode(("--set", f"watchNamespaces={{{TENANT}}}"), metrics_api=False, whole_cluster=False),
}
PEOPLES = {"inflight-view": "get", "inflight-edit": "create"}
"""Roles for people, with a verb that each of them gives."""
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
METRICS = "/apis/custom.metrics.k8s.io/v1beta2"


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


@pytest.mark.parametrize("mode", [pytest.param(mode, id=name) for name, mode in MODES.items()])
async def test_every_right_is_used_and_none_is_missing(api: Running, tmp_path: Path, mode: Mode) -> None:
    """Seen failing with one right too many, and with any of thirteen taken away."""
    objects = [item for item in yaml.load_all(render(*mode.options), yaml.CSafeLoader) if item]
    install(api, objects)
    async with AsyncExitStack() as stack:
        kube = await stage(stack, api, mode, objects, tmp_path)
        await life_of_a_model(kube)
        if mode.whole_cluster:
            await nothing_but_a_mark_can_be_changed(api, kube, tmp_path)
        await life_of_an_installation(kube, mode)
    assert rights.refused(api.audit_log, USER) == set()
    unused = rights.granted(objects) - people(objects) - rights.used(api.audit_log, USER)
    assert unused == set(), "\n".join(sorted(unused))


def people(objects: list[Object]) -> set[str]:
    """Rights of the roles that are bound to nobody by us: they are for people."""
    return rights.granted(item for item in objects if item["metadata"]["name"] in PEOPLES)


async def test_what_people_may_is_what_they_can_do(api: Running, tmp_path: Path) -> None:
    """Ada has the two roles that are added to view and edit, and does with a ModelDeployment all that one can."""
    objects = [item for item in yaml.load_all(render(), yaml.CSafeLoader) if item]
    install(api, objects)
    signer = pki.Pair(api.ca, api.ca.with_suffix(".key"))
    kubeconfig = credentials.client(tmp_path, signer, "ada", server=api.url, user="ada")
    async with Kube(access(api.kubeconfig)) as admin, Kube(access(kubeconfig)) as ada:
        for role in PEOPLES:
            await bound(admin, role, "ada")
        await ada.apply(model(1))
        stored = await ada.get(names.KIND, TENANT, "digits")
        assert stored
        where = path(names.KIND, TENANT, "digits")
        await ada.request("GET", f"{where}/status")
        await ada.request("PUT", where, {**stored, "spec": model(2)["spec"]})
        async with ada.watch(names.KIND, TENANT):
            pass
        await ada.delete(names.KIND, TENANT, "digits")
        await ada.request("DELETE", path(names.KIND, TENANT))
        with pytest.raises(ApiError) as unserved:
            await ada.request("GET", f"{METRICS}/namespaces/{TENANT}/deployments.apps/a/{names.METRIC}")
        assert unserved.value.status == 404, "nobody serves it here, which is found out after the right"
        assert rights.refused(api.audit_log, "ada") == set()
        with pytest.raises(ApiError, match="forbidden"):
            await ada.request("PATCH", f"{where}/status", {"status": {}}, "application/merge-patch+json")
    assert people(objects) - rights.used(api.audit_log, "ada") == set()


async def bound(kube: Kube, role: str, user: str) -> None:
    """A person has a role in the tenant's namespace; returns when it is in force."""
    group = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }
    await kube.request("POST", f"/apis/{group}/v1/namespaces/{TENANT}/rolebindings", binding)
    what = {"namespace": TENANT, "group": names.GROUP, "resource": names.PLURAL, "verb": PEOPLES[role]}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": what},
    }

    async def may() -> bool:
        answer = await kube.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return bool(answer["status"]["allowed"])

    await kube.wait_until(may, f"{user} has {role}", seconds=15)


def install(api: Running, objects: list[Object]) -> None:
    """The chart's objects and the tenant's namespace."""
    namespaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in (SYSTEM, TENANT)]
    kubectl = [str(tools.ensure(["kubectl"])["kubectl"]), "--kubeconfig", str(api.kubeconfig)]
    apply = [*kubectl, "apply", "--server-side", "-f", "-"]
    install_definition(api.kubeconfig)
    subprocess.run(apply, input=yaml.safe_dump_all([*namespaces, *objects]), text=True, check=True, capture_output=True)


async def stage(stack: AsyncExitStack, api: Running, mode: Mode, objects: list[Object], directory: Path) -> Kube:
    """Operator, router and a model's server at work; cluster-admin's client."""
    ports = Ports(*(free_port() for _ in fields(Ports)))
    kube = await stack.enter_async_context(Kube(access(api.kubeconfig)))
    await left_by_earlier_installations(kube, mode)
    await stack.enter_async_context(model_server(ports.model))
    await stack.enter_async_context(operator(api, objects, directory, ports))
    tls = await routers_certificate(kube, directory / "router-tls")
    await stack.enter_async_context(envoy(directory / "router", ports.xds, tls=tls))
    if mode.metrics_api:
        await metric_is_asked_for(api, ports.metrics_api)
    return kube


async def left_by_earlier_installations(kube: Kube, mode: Mode) -> None:
    """An authority that is about to expire; and where there are no HPAs, the APIService from when there were."""
    now = issue.utc_now()
    pair = issue.authority(now, AUTHORITY_LIFETIMES * LIFETIME_SECONDS / 3)
    data = {"tls.crt": pair.certificate, "tls.key": pair.key}
    secret: Object = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": AUTHORITY, "namespace": SYSTEM},
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }
    await kube.apply(secret)
    if mode.whole_cluster and not mode.metrics_api:
        await kube.request("POST", API_SERVICES, aggregation.manifest(SYSTEM, b""))


async def routers_certificate(kube: Kube, directory: Path) -> Path:
    """What the kubelet would mount, once the operator has made it."""
    found = await kube.wait("Secret", SYSTEM, ROUTERS, bool, seconds=60)
    directory.mkdir()  # noqa: ASYNC240
    for name, value in (found or {})["data"].items():
        (directory / name).write_bytes(base64.b64decode(value))
    return directory


async def life_of_an_installation(kube: Kube, mode: Mode) -> None:
    """Certificates are renewed, routers get a last known good configuration, and our APIService comes and goes."""
    taken = ((await kube.get("Secret", SYSTEM, ROUTERS)) or {})["data"]
    await kube.wait("Secret", SYSTEM, AUTHORITY, lambda found: "next.crt" in (found or {})["data"], seconds=60)
    await kube.wait("Secret", SYSTEM, ROUTERS, lambda found: (found or {})["data"] != taken, seconds=60)
    await kube.wait("ConfigMap", SYSTEM, LAST_GOOD, bool, seconds=60)
    ours = f"{API_SERVICES}/{aggregation.name()}"
    if mode.metrics_api:
        await appears(kube, ours, there=True)
        other = aggregation.manifest("default", b"")
        other["metadata"]["name"] = "v1beta1.custom.metrics.k8s.io"
        other["spec"]["version"] = "v1beta1"
        await kube.request("POST", API_SERVICES, other)
    if mode.whole_cluster:
        await appears(kube, ours, there=False)


async def appears(kube: Kube, where: str, *, there: bool) -> None:
    async def so() -> bool:
        try:
            await kube.request("GET", where)
        except ApiError as error:
            return error.status == 404 and not there
        return there

    await kube.wait_until(so, f"{where} is {'there' if there else 'gone'}", seconds=60)


async def metric_is_asked_for(api: Running, port: int) -> None:
    """By the API server's front proxy, for a user whose rights only the API server knows."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(api.ca.parent / "front-proxy.crt", api.ca.parent / "front-proxy.key")
    url = f"https://127.0.0.1:{port}{METRICS}/namespaces/{TENANT}/deployments.apps/a/"
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
    """Born bigger than one, replaced, and its past forgotten; then one pod is too many."""
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
    await kube.apply(model(2, least=1))
    await kube.wait("Pod", TENANT, second, is_marked, seconds=60)


def is_marked(pod: Object | None) -> bool:
    """To leave before the other one: one of the two is too many."""
    return leaving.ANNOTATION in ((pod or {"metadata": {}})["metadata"].get("annotations") or {})


CHANGES = {
    "its image": {"spec": {"containers": [{"name": "server", "image": "mine"}]}},
    "how long it lives": {"spec": {"activeDeadlineSeconds": 1}},
    "a label": {"metadata": {"labels": {"mine": "yes"}}},
    "another annotation": {"metadata": {"annotations": {"mine": "yes"}}},
    "one that is there": {"metadata": {"annotations": {"kept": None}}},
    "a label that is there": {"metadata": {"labels": {"kept": None}}},
    "a finalizer": {"metadata": {"finalizers": ["example.com/mine"]}},
    "its owner": {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "b"}]}},
}


async def nothing_but_a_mark_can_be_changed(api: Running, kube: Kube, directory: Path) -> None:
    """With the operator's own rights, of a model's pod; of somebody else's nothing at all. Without the policy each of
    these is done."""
    for name, labels in (("other", {"kept": "yes", names.MODEL_DEPLOYMENT: "digits"}), ("foreign", {"kept": "yes"})):
        metadata = {"name": name, "namespace": "default", "labels": labels, "annotations": {"kept": "yes"}}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        await kube.apply({**pod, "spec": {"containers": [{"name": "server", "image": "never-pulled"}]}})
    signer = pki.Pair(api.ca, api.ca.with_suffix(".key"))
    kubeconfig = credentials.client(directory / "marks", signer, "operator", server=api.url, user=USER)
    kind = "application/strategic-merge-patch+json"
    async with Kube(access(kubeconfig)) as operators:

        async def refused(change: Object, pod: str = "other") -> bool:
            try:
                await operators.request("PATCH", f"/api/v1/namespaces/default/pods/{pod}", change, kind)
            except ApiError as error:
                return "inflight-operator may change n" in str(error)
            return False

        await kube.wait_until(lambda: refused(CHANGES["a label"]), "the policy is in force", seconds=30)
        for what, change in CHANGES.items():
            assert await refused(change), what
        for cost in (leaving.COST, None):
            mark = {"metadata": {"annotations": {leaving.ANNOTATION: cost}}}
            assert not await refused(mark)
        mark = {"metadata": {"annotations": {leaving.ANNOTATION: leaving.COST}}}
        assert await refused(mark, "foreign")


def model(version: int, least: int = 2) -> Object:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": "digits", "namespace": TENANT},
        "spec": {
            "variants": [{"name": "main", "model": {"uri": f"s3://models/digits/{version}"}}],
            "server": {"timeoutMilliseconds": 100},
            "autoscaling": {"minReplicas": least},
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
        "endpoints": [
            {
                "addresses": [f"10.1.0.{n}"],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "name": name, "namespace": TENANT},
            }
            for n in (1, 2)
        ],
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
