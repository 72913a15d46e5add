"""inflight in one namespace, installed by somebody without rights outside it: a trial, or a shared cluster."""

import asyncio
import json

import pytest

from inflight_probe.infer import output, sender, session, through
from inflight_probe.kube import condition
from inflight_probe.load import closed_loop
from stage import ONE, variant
from trial import CHART, helm, kubectl, trial

CLIENTS = 4
NOT_NAMESPACED = (
    "ClusterRole", "ClusterRoleBinding", "APIService", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
)  # fmt: skip


def cluster_wide() -> set[str]:
    """Every object that is in no namespace and that an installation may bring."""
    found = json.loads(kubectl("get", ",".join(NOT_NAMESPACED), "-o", "json"))["items"]
    return {f"{item['kind']}/{item['metadata']['name']}" for item in found}


async def load(stage, seconds):
    async with session() as http:
        target = through(stage.router, stage.namespace, "slow")
        send = sender(http, target, ONE, lambda _n, answer: output(answer))
        return await closed_loop(send, clients=CLIENTS, seconds=seconds)


async def replicas(stage) -> int:
    (deployment,) = await stage.owned("Deployment", "slow")
    return int(deployment["spec"]["replicas"])


async def test_a_namespace_of_its_own_serves_scales_and_leaves_without_a_right_outside_it(stage):
    """Seen failing (one replica all the time) with an operator that makes no HPA and sets no replicas either."""
    before = cluster_wide()
    with pytest.raises(Exception, match="forbidden"):
        helm("install", "all", CHART, "--namespace", stage.namespace)
    async with trial(stage) as own:
        assert cluster_wide() == before
        bounds = {"minReplicas": 1, "maxReplicas": 6, "targetInFlight": 1, "scaleDownStabilizationSeconds": 0}
        served = await own.serve("slow", variant("main", "e2e/slow/1/model.py"), autoscaling=bounds)
        assert served["status"]["url"] == f"http://slow.{own.namespace}.svc"
        assert await own.owned("HorizontalPodAutoscaler", "slow") == []
        loading = asyncio.create_task(load(own, 30))
        seen = []
        while not loading.done():
            seen.append(await replicas(own))
            await asyncio.sleep(0.5)
        run = await loading
        assert run.why() == {}
        assert max(seen) in (CLIENTS, CLIENTS + 1), seen
        told = condition(await own.get("ModelDeployment", "slow"), "ScalingActive")
        assert (told["status"], told["reason"]) == ("True", "OperatorScales")

        async def alone():
            return await replicas(own) == 1

        await own.kube.wait_until(alone, "one replica again", seconds=60, every=1)
    assert cluster_wide() == before
    kept = await stage.get("ModelDeployment", "slow")
    assert kept["spec"]["variants"][0]["name"] == "main"
