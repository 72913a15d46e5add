"""The HPA scales on requests in flight, and what the routers report is what the pods themselves count."""

import asyncio
from statistics import median

import aiohttp
import pytest

from inflight_probe.infer import output, sender, session, through
from inflight_probe.load import closed_loop
from inflight_probe.scaling import metric, revision_of, scale
from stage import ONE, variant

CLIENTS = 4
SECONDS = 50
SETTLED = 20
"""The last looks at a load, when nothing changes any more."""


@pytest.fixture
async def slow(stage):
    """A model that takes 200 ms, with one replica that may hold all of the load."""
    bounds = {"minReplicas": 1, "maxReplicas": 6, "targetInFlight": 1, "scaleDownStabilizationSeconds": 0}
    await stage.serve("slow", variant("main", "e2e/slow/1/model.py"), autoscaling=bounds)
    return await revision_of(stage.kube, stage.namespace, "slow")


async def load(stage, seconds):
    async with session() as http:
        target = through(stage.router, stage.namespace, "slow")
        send = sender(http, target, ONE, lambda _n, answer: output(answer))
        return await closed_loop(send, clients=CLIENTS, seconds=seconds)


def running(pod) -> bool:
    return all(c["ready"] for c in pod["status"].get("containerStatuses", [{"ready": False}]))


async def gauges(stage) -> float:
    """Requests in flight as the pods count them, running and waiting."""
    total = 0.0
    for pod in await stage.owned("Pod", "slow"):
        if not running(pod):
            continue
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://{pod['status']['podIP']}:9090/metrics") as answer,
        ):
            lines = (await answer.text()).splitlines()
        counted = [line for line in lines if line.startswith("inflight_server_requests_in_flight")]
        assert counted, "the pod has no gauge of its requests in flight"
        total += sum(float(line.rsplit(" ", 1)[1]) for line in counted)
    return total


async def test_load_makes_replicas_and_its_end_takes_them_away(stage, slow):
    loading = asyncio.create_task(load(stage, SECONDS))
    told, counted, ready = [], [], []
    while not loading.done():
        told.append(await metric(stage.kube, stage.namespace, slow))
        counted.append(await gauges(stage))
        ready.append((await scale(stage.kube, stage.namespace, slow)).ready)
        await asyncio.sleep(0.5)
    run = await loading
    assert run.why() == {}
    assert max(ready) >= CLIENTS
    assert median(told[-SETTLED:]) == pytest.approx(CLIENTS, rel=0.1), "what the HPA is told"
    assert median(counted[-SETTLED:]) == pytest.approx(CLIENTS, abs=1), "what the pods count themselves"

    async def alone():
        return (await scale(stage.kube, stage.namespace, slow)).desired == 1

    await stage.kube.wait_until(alone, "one replica again", seconds=120, every=1)
