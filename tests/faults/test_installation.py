"""The installation under 200 requests/s: upgraded, rolled back, leaderless, with certificates that change every minute.

Each test prints its figure; docs/numbers-install.md has them. `INFLIGHT_FAULT_SECONDS` shortens the long ones (600) for
a look. `INFLIGHT_FAULT_WITHOUT=drain`, `last-good` or `overlap` takes a protection away: the test that it is for has to
fail.
"""

import asyncio
import json
import os
import signal
import time
from contextlib import asynccontextmanager

import pytest

from inflight_demo.cluster import CLUSTER, ROOT, SYSTEM, quietly
from inflight_probe import operators, pods
from inflight_probe.kube import condition
from stage import variant

RATE = 200
WITHOUT = os.environ.get("INFLIGHT_FAULT_WITHOUT", "")
LONG = int(os.environ.get("INFLIGHT_FAULT_SECONDS", "600"))
CHART = str(ROOT / "charts" / "inflight")
ECHO = "e2e/echo/1/model.py"
ROUTER = "app.kubernetes.io/name=inflight,app.kubernetes.io/component=router"
DEFINITION = "modeldeployments.serving.inflight.dev"
SLOW = "e2e/slow/1/model.py"
"""It takes 200 ms, so that 40 requests are under way at any time."""
ROOMY = {"concurrency": 24, "isolation": "thread"}
THREE = {"minReplicas": 3, "maxReplicas": 3}


def helm(*arguments):
    return quietly(CLUSTER, "exec", "--", "helm", *arguments, "-n", SYSTEM)


def kubectl(*arguments):
    return quietly(CLUSTER, "kubectl", *arguments)


async def aside(call, *arguments):
    """A command, without stopping the load."""
    return await asyncio.to_thread(call, *arguments)


@asynccontextmanager
async def loaded(stage, what, *, at_least=10_000, model=ECHO):
    """RATE requests/s for the block and until there are enough: none may fail, and no model pod may be replaced."""
    await stage.serve("model", variant("main", model), autoscaling=THREE, server=ROOMY)
    before = {pod["metadata"]["uid"] for pod in await stage.owned("Pod", "model")}
    began = time.monotonic()
    async with stage.load("model", rate=RATE) as run:
        await asyncio.sleep(2)
        yield run
        await asyncio.sleep(max(0.0, at_least / RATE - (time.monotonic() - began)))
    print(
        f"{what}: {len(run.failed)} failed of {len(run.outcomes)} {dict(run.why())}, p99 {run.milliseconds(99):.0f} ms"
    )
    assert run.why() == {}
    assert len(run.outcomes) >= at_least
    assert {pod["metadata"]["uid"] for pod in await stage.owned("Pod", "model")} == before


async def test_an_upgrade_and_a_rollback_lose_nothing(stage):
    """Routers, operators and the definition all change: other values, and another annotation on every pod."""
    other = ("--set", "router.drainSeconds=20,operator.logLevel=DEBUG,router.workers=1")
    revision = json.loads(helm("history", "inflight", "-o", "json"))[-1]["revision"]
    try:
        async with loaded(stage, "helm upgrade", model=SLOW):
            if WITHOUT == "drain":
                router = (await stage.kube.list_all("Pod", SYSTEM, ROUTER))[0]
                for pid in pods.processes(router["metadata"]["uid"]):
                    os.kill(pid, signal.SIGKILL)
            await aside(helm, "upgrade", "inflight", CHART, "--wait", "--timeout", "4m", *other)
    finally:
        async with loaded(stage, "helm rollback", model=SLOW):
            await aside(helm, "rollback", "inflight", str(revision), "--wait", "--timeout", "4m")


async def test_new_operators_lose_nothing(stage):
    async with loaded(stage, "operator upgrade"):
        await aside(kubectl, "-n", SYSTEM, "rollout", "restart", "deployment/inflight-operator")
        await aside(kubectl, "-n", SYSTEM, "rollout", "status", "deployment/inflight-operator", "--timeout=180s")


async def test_a_killed_leader_is_followed_and_the_hpa_has_its_metric_again(stage):
    """As when its node is lost: it says nothing more, holds its sockets, and the other one has to find out."""
    async with loaded(stage, "leader killed"):
        gone = await operators.leader(stage.kube, SYSTEM)
        path = f"/api/v1/namespaces/{SYSTEM}/pods/{gone['metadata']['name']}"
        hpa = (await stage.owned("HorizontalPodAutoscaler", "model"))[0]["metadata"]["name"]
        began = time.monotonic()
        for pid in pods.processes(gone["metadata"]["uid"]):
            os.kill(pid, signal.SIGSTOP)
        await stage.kube.request("DELETE", path, {"gracePeriodSeconds": 0})
        led, without = None, 0.0
        while time.monotonic() - began < 60:
            await asyncio.sleep(0.25)
            if led is None and await leads_now(stage, gone):
                led = time.monotonic() - began
            scaling = condition(await stage.get("HorizontalPodAutoscaler", hpa), "ScalingActive")
            without += 0.25 if scaling.get("status") == "False" else 0.0
    print(f"the next one led after {led:.1f} s; ScalingActive was False for {without:.0f} s (one sync: 15 s)")
    assert led is not None
    assert led <= 15
    assert without <= 15


async def leads_now(stage, gone):
    try:
        return (await operators.leader(stage.kube, SYSTEM))["metadata"]["uid"] != gone["metadata"]["uid"]
    except LookupError:
        return False


async def test_without_operators_nothing_is_lost_and_a_new_router_serves(stage):
    async with loaded(stage, f"no operator for {LONG} s, then a router replaced", at_least=LONG * RATE):
        async with stage.without_operator():
            if WITHOUT == "last-good":
                await stage.kube.delete("ConfigMap", SYSTEM, "inflight-last-good")
            await asyncio.sleep(LONG)
            old = (await stage.kube.list_all("Pod", SYSTEM, ROUTER))[0]["metadata"]
            known = {pod["metadata"]["uid"] for pod in await stage.kube.list_all("Pod", SYSTEM, ROUTER)}
            began = time.monotonic()
            await stage.kube.delete("Pod", SYSTEM, old["name"])

            async def new_one():
                found = await stage.kube.list_all("Pod", SYSTEM, ROUTER)
                fresh = [pod for pod in found if pod["metadata"]["uid"] not in known]
                return any(condition(pod, "Ready").get("status") == "True" for pod in fresh)

            await stage.kube.wait_until(new_one, "a new router is ready", seconds=60)
            took = time.monotonic() - began
            await asyncio.sleep(10)
        await asyncio.sleep(30)  # it asks the operator again
    print(f"the new router was ready after {took:.1f} s")
    assert took <= 15


async def follows(stage, number):
    """Seconds until a change of the routes is in force in every router."""
    began = time.monotonic()
    change = {"spec": {"traffic": {"timeoutMilliseconds": 9000 + number}}}
    await stage.kube.patch("ModelDeployment", stage.namespace, "model", change)

    def done(found):
        ready = condition(found, "Ready")
        return ready.get("status") == "True" and ready.get("observedGeneration") == found["metadata"]["generation"]

    await stage.kube.wait("ModelDeployment", stage.namespace, "model", done, seconds=180)
    return time.monotonic() - began


async def test_certificates_that_change_every_minute_lose_nothing(stage):
    """Every minute another operator leads, to which the routers have to connect with what they believe by then."""

    def serial():
        return kubectl("-n", SYSTEM, "get", "secret", "inflight-tls", "-o", "jsonpath={.data.tls\\.crt}")

    short = ("--reuse-values", "--set", "certificates.lifetime=3m")
    await aside(helm, "upgrade", "inflight", CHART, "--wait", "--timeout", "4m", *short)
    try:
        seen = set()
        async with loaded(stage, f"certificates every minute for {LONG} s", at_least=LONG * RATE):
            end, took = time.monotonic() + LONG, []
            while time.monotonic() < end:
                for _ in range(10):
                    seen.add(await aside(serial))
                    await asyncio.sleep(5)
                if WITHOUT == "overlap":
                    await aside(kubectl, "-n", SYSTEM, "delete", "secret", "inflight-ca")
                    await asyncio.sleep(10)  # another one is made, which nobody has been told of
                leader = await stage.led()
                await stage.kube.delete("Pod", SYSTEM, leader["metadata"]["name"])
                await asyncio.sleep(1)
                took.append(await follows(stage, len(took)))
            # Whoever connects now does so with certificates that did not exist when the load began.
            await aside(kubectl, "-n", SYSTEM, "rollout", "restart", "deployment/inflight-router")
            await aside(kubectl, "-n", SYSTEM, "rollout", "status", "deployment/inflight-router", "--timeout=180s")
        print(
            f"{len(seen)} certificates of the routers; changes in force after {max(took):.1f} s at most, of {len(took)}"
        )
        assert max(took) <= 15
        assert len(seen) >= LONG // 75
        assert "Phase:          Succeeded" in await aside(helm, "test", "inflight", "--timeout", "2m")
    finally:
        await aside(helm, "upgrade", "inflight", CHART, "--wait", "--timeout", "4m", "--reset-values")


async def test_uninstalling_leaves_what_is_the_users_and_installing_again_takes_it_over(stage):
    await stage.serve("kept", variant("main", ECHO))
    pods = {pod["metadata"]["uid"] for pod in await stage.owned("Pod", "kept")}
    began = time.monotonic()
    await aside(helm, "uninstall", "inflight", "--wait", "--timeout", "2m")
    await gone(stage)
    removed = time.monotonic() - began
    assert kubectl("get", "crd", DEFINITION, "-o", "name")
    assert {pod["metadata"]["uid"] for pod in await stage.owned("Pod", "kept")} == pods
    began = time.monotonic()
    await aside(helm, "install", "inflight", CHART, "--wait", "--timeout", "4m")
    await stage.ready("kept")
    installed = time.monotonic() - began
    assert {pod["metadata"]["uid"] for pod in await stage.owned("Pod", "kept")} == pods
    print(f"uninstalled in {removed:.1f} s, installed to Ready in {installed:.1f} s")
    assert removed <= 60
    assert installed <= 90


async def gone(stage):
    """Nothing of the installation is left, in its namespace or outside any."""

    async def nothing():
        own = kubectl("-n", SYSTEM, "get", "all,secret,cm,lease,endpointslice,sa,role,rolebinding,pdb", "-o", "name")
        wide = kubectl("get", "clusterrole,clusterrolebinding,apiservice", "-o", "name")
        names = [line.partition("/")[2] for line in (own + wide).splitlines()]
        return not [name for name in names if name.startswith("inflight-") or "custom.metrics" in name]

    await stage.kube.wait_until(nothing, "nothing of the installation is left", seconds=90)


@pytest.fixture(autouse=True)
async def as_before(stage):
    """Every test ends with the installation at work."""
    yield
    await stage.led()
