"""Two operator processes on a real API server, with the rights that the chart gives: one leads, the other follows."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from inflight_cluster import credentials, pki
from inflight_cluster.apiserver import Running
from inflight_demo.manifests import NAMESPACE
from inflight_operator.decide import election
from inflight_probe.kube import ApiError, Kube, Object, access
from installed import OPERATOR, environment, install
from ports import free_port

APISERVICE = "/apis/apiregistration.k8s.io/v1/apiservices/{}"
OURS = APISERVICE.format("v1beta2.custom.metrics.k8s.io")
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/inflight-operator"


@dataclass
class Process:
    """One operator; what it says goes to `log`."""

    name: str
    process: asyncio.subprocess.Process
    health: str
    log: Path

    async def ready(self) -> bool:
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{self.health}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def stop(self, number: int) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)
            await asyncio.wait_for(self.process.wait(), 20)


@dataclass
class House:
    """An installation, and who runs in it."""

    kube: Kube
    kubeconfig: Path
    directory: Path
    running: list[Process] = field(default_factory=list)

    async def start(self, name: str) -> Process:
        ports = [free_port() for _ in range(3)]
        told = environment(
            {
                "INFLIGHT_POD_NAME": name,
                "INFLIGHT_POD_IP": own_address(),
                "INFLIGHT_TLS_DIR": str(self.directory / name),
                "INFLIGHT_XDS_PORT": str(ports[0]),
                "INFLIGHT_METRICS_API_PORT": str(ports[1]),
                "INFLIGHT_METRICS_PORT": str(ports[2]),
                "KUBECONFIG": str(self.kubeconfig),
            }
        )
        log = self.directory / f"{name}.log"
        with log.open("w") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "inflight_operator", env={**os.environ, **told}, stdout=out, stderr=out
            )
        made = Process(name, process, f"http://127.0.0.1:{ports[2]}", log)
        self.running.append(made)
        await self.kube.wait_until(made.ready, f"{name} is ready:\n{log.read_text()}", seconds=30)
        return made

    async def found_at(self) -> str | None:
        """The pod that the operator's Service leads to."""
        found = await self.kube.get("EndpointSlice", NAMESPACE, "inflight-operator")
        return str(found["endpoints"][0]["targetRef"]["name"]) if found else None

    async def leads(self, process: Process, seconds: float) -> float:
        """Wait until everybody is sent to `process`; for how many seconds."""
        began = time.monotonic()

        async def here() -> bool:
            return await self.found_at() == process.name

        await self.kube.wait_until(here, f"{process.name} leads", seconds=seconds, every=0.1)
        return time.monotonic() - began

    async def apiservice(self) -> Object | None:
        try:
            found: Object = await self.kube.request("GET", OURS)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def registered(self, *, is_there: bool = True) -> None:
        async def so() -> bool:
            return (await self.apiservice() is not None) is is_there

        await self.kube.wait_until(so, f"the APIService is {'there' if is_there else 'gone'}", seconds=30)


@pytest.fixture
async def house(api: Running, crd: None, tmp_path: Path) -> AsyncIterator[House]:
    async with opened(api, tmp_path) as made:
        yield made


@asynccontextmanager
async def opened(api: Running, directory: Path) -> AsyncIterator[House]:
    signer = pki.Pair(api.ca, api.ca.with_suffix(".key"))
    kubeconfig = credentials.client(directory / "client", signer, "operator", server=api.url, user=OPERATOR)
    async with Kube(access(api.kubeconfig)) as kube:
        await install(kube)
        made = House(kube, kubeconfig, directory)
        try:
            yield made
        finally:
            await asyncio.gather(*(process.stop(signal.SIGKILL) for process in made.running))
            for path in (
                OURS,
                LEASE,
                f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/inflight-operator",
                f"/api/v1/namespaces/{NAMESPACE}/secrets/inflight-ca",
                f"/api/v1/namespaces/{NAMESPACE}/secrets/inflight-tls",
            ):
                await remove(kube, path)


async def remove(kube: Kube, path: str) -> None:
    try:
        await kube.request("DELETE", path)
    except ApiError as error:
        if error.status != 404:
            raise


def own_address() -> str:
    """This machine's: the API server takes no loopback address for an endpoint. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


async def test_the_first_leads_the_second_waits_and_everything_belongs_to_the_installation(house: House) -> None:
    first = await house.start("first")
    await house.leads(first, 10)
    await house.registered()
    second = await house.start("second")
    await asyncio.sleep(3)
    assert await house.found_at() == first.name
    assert "leading" not in second.log.read_text()
    service = await house.kube.get("Service", NAMESPACE, "inflight-operator")
    role = await house.kube.request("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/inflight-operator")
    assert service
    kept = [await house.kube.request("GET", LEASE), await house.apiservice()]
    for kind, name in (("EndpointSlice", "inflight-operator"), ("Secret", "inflight-ca"), ("Secret", "inflight-tls")):
        kept.append(await house.kube.get(kind, NAMESPACE, name))
    owners = [[owner["uid"] for owner in (item or {})["metadata"]["ownerReferences"]] for item in kept]
    assert owners == [[service["metadata"]["uid"]], [role["metadata"]["uid"]], *[[service["metadata"]["uid"]]] * 3]


async def test_the_other_leads_within_fifteen_seconds_of_a_kill(house: House) -> None:
    first = await house.start("first")
    await house.leads(first, 10)
    second = await house.start("second")
    await first.stop(signal.SIGKILL)
    assert await house.leads(second, 30) <= 15.0
    assert await second.ready()


async def test_who_is_told_to_stop_hands_over_at_once_and_serves_until_then(house: House) -> None:
    first = await house.start("first")
    await house.leads(first, 10)
    second = await house.start("second")
    first.process.send_signal(signal.SIGTERM)
    assert await house.leads(second, 30) <= 3.0
    assert await asyncio.wait_for(first.process.wait(), 10) == 0
    assert "Traceback" not in first.log.read_text()


async def test_who_comes_back_in_the_same_pod_leads_on_without_waiting(house: House) -> None:
    """A container that was killed is started again by its kubelet, under the same name."""
    first = await house.start("first")
    await house.leads(first, 10)
    second = await house.start("second")
    await first.stop(signal.SIGKILL)
    again = await house.start("first")
    await asyncio.sleep(election.LEASE_SECONDS)
    assert await house.found_at() == first.name
    assert "leading" in again.log.read_text()
    assert "leading" not in second.log.read_text()


async def test_another_adapter_keeps_its_place_and_ours_comes_when_it_goes(house: House) -> None:
    """By the group, not by the version: an HPA asks whichever is preferred."""
    foreign = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.custom.metrics.k8s.io"},
        "spec": {
            "group": "custom.metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"name": "prometheus-adapter", "namespace": "monitoring"},
        },
    }
    await house.kube.request("POST", "/apis/apiregistration.k8s.io/v1/apiservices", foreign)
    try:
        first = await house.start("first")
        await house.leads(first, 10)
        events = await house.kube.list_all("Event", NAMESPACE)
        told = [e for e in events if e["reason"] == "OtherMetricsAdapter"]
        assert "v1beta1.custom.metrics.k8s.io of Service monitoring/prometheus-adapter" in told[0]["message"]
        assert told[0]["involvedObject"]["kind"] == "Service"
        assert await house.apiservice() is None
    finally:
        await remove(house.kube, APISERVICE.format("v1beta1.custom.metrics.k8s.io"))
    await house.registered()
    await house.kube.request("POST", "/apis/apiregistration.k8s.io/v1/apiservices", foreign)
    try:
        await house.registered(is_there=False)
    finally:
        await remove(house.kube, APISERVICE.format("v1beta1.custom.metrics.k8s.io"))


async def test_it_reads_no_secret_but_its_own(house: House) -> None:
    async with Kube(access(house.kubeconfig)) as operator:
        for namespace, name in ((NAMESPACE, "/other"), ("default", "/inflight-tls"), (NAMESPACE, "")):
            with pytest.raises(ApiError, match="403"):
                await operator.request("GET", f"/api/v1/namespaces/{namespace}/secrets{name}")
