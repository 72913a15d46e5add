"""What people look at: every query of the dashboard and of the adapter's rule, over what the real processes tell."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from model_process import ServerProcess, started
from monitoring import ROOT, World, component, model_pod, until
from ports import free_port
from route_specs import backend, route_spec
from router_rig import Rig

DASHBOARD = json.loads((ROOT / "charts" / "inflight" / "files" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ADAPTER = yaml.safe_load((ROOT / "manifests" / "prometheus-adapter-values.yaml").read_text())["rules"]["custom"][0]
SLEEP = ROOT / "model-server" / "examples" / "sleep.py"
INFER = "/v2/models/digits/infer"
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}


@asynccontextmanager
async def serving(world: World, directory: Path, server: ServerProcess) -> AsyncIterator[Rig]:
    """A second router of the installation's, with a model server's pod behind it, and one that can't be reached."""
    async with AsyncExitStack() as stack:
        rig = Rig(directory, stack, await stack.enter_async_context(aiohttp.ClientSession()))
        await rig.start(route_spec(backend(ports=[server.port, free_port()])))
        router = await rig.router("router-1")
        world.prometheus.watch("inflight-router", "router-1", router.status_port, component("router", "status"))
        port = int(server.metrics_url.rpartition(":")[2].partition("/")[0])
        labels = model_pod("digits", "stable", "aaaa1111", "demo")
        world.prometheus.watch("inflight-model-server", "digits-1", port, labels)
        try:
            yield rig
        finally:
            world.prometheus.forget("inflight-router", "router-1")
            world.prometheus.forget("inflight-model-server", "digits-1")


@asynccontextmanager
async def clients(rig: Rig, count: int) -> AsyncIterator[None]:
    """They ask one after the other while the block runs."""

    async def ask() -> None:
        while True:
            await rig.ask(INFER, method="POST", json=BODY)

    tasks = [asyncio.create_task(ask()) for _ in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def filled_in(expression: str, **variables: str) -> str:
    """A panel's query as Grafana sends it."""
    for name, value in {"__rate_interval": "10s", **variables}.items():
        expression = expression.replace(f"${name}", value)
    assert "$" not in expression, "a variable that the dashboard does not have"
    return expression


def empty_panels(world: World, **variables: str) -> list[str]:
    """Titles of panels that would show nothing; each query has to be one that Prometheus can evaluate."""
    found = []
    for panel in PANELS:
        answers = [world.prometheus.query(filled_in(t["expr"], **variables)) for t in panel["targets"]]
        if not any(answers):
            found.append(panel["title"])
    return found


@pytest.fixture
def server() -> Any:
    settings = {"CONCURRENCY": "2", "MAX_QUEUE": "1", "MODEL_FORMAT": "python", "MODEL_ENTRYPOINT": "sleep:Sleep"}
    with started("--model", f"digits={SLEEP}", **settings) as running:
        yield running


async def test_every_panel_shows_something(
    deployed: World, cluster: Any, server: ServerProcess, tmp_path: Path
) -> None:
    """Of everything, and of what somebody has chosen."""
    everything = {"namespace": ".*", "modeldeployment": ".*"}
    some = {"namespace": "demo|default", "modeldeployment": "digits|broken"}
    cluster.deploy("broken")
    async with serving(deployed, tmp_path, server) as rig, clients(rig, 8):
        for variables in (everything, some):
            empty = partial(empty_panels, deployed, **variables)
            await asyncio.to_thread(until, lambda: not empty(), "every panel shows something")  # noqa: B023 - awaited
    cluster.delete("broken")


async def test_every_metric_that_is_asked_for_is_one_that_we_tell(
    deployed: World, server: ServerProcess, tmp_path: Path
) -> None:
    """Also those of what has never happened, such as a failed reconcile: a family is told before it has a series."""
    expressions = [target["expr"] for panel in PANELS for target in panel["targets"]]
    asked = {name for text in expressions for name in re.findall(r"\b(?:inflight|envoy)_\w+(?=[{\[])", text)}
    assert len(asked) > 15
    async with serving(deployed, tmp_path, server) as rig, clients(rig, 8), aiohttp.ClientSession() as http:
        told = set[str]()
        for url in (f"http://127.0.0.1:{deployed.operator_port}/metrics", server.metrics_url):
            async with http.get(url) as answer:
                told |= set(re.findall(r"^# TYPE (\S+)", await answer.text(), re.MULTILINE))
        families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked if name.startswith("inflight_")}
        assert families <= told
        envoys = {name for name in asked if name.startswith("envoy_")}
        await asyncio.to_thread(
            until, lambda: envoys <= deployed.prometheus.metrics(), "every metric of Envoy's is there"
        )


async def test_the_adapters_rule_gives_each_pod_the_requests_it_has(
    deployed: World, server: ServerProcess, tmp_path: Path
) -> None:
    """As prometheus-adapter fills it in for an HPA that asks about these pods."""
    query = ADAPTER["metricsQuery"].replace("[1m]", "[5s]")
    for placeholder, value in {
        "<<.Series>>": ADAPTER["seriesQuery"].partition("{")[0],
        "<<.LabelMatchers>>": 'namespace="demo",pod=~"digits-1|digits-2"',
        "<<.GroupBy>>": "pod",
    }.items():
        assert placeholder in query
        query = query.replace(placeholder, value)

    def told() -> list[tuple[Any, float]]:
        assert len(deployed.prometheus.query(ADAPTER["seriesQuery"])) <= 1
        return [(sample["metric"], float(sample["value"][1])) for sample in deployed.prometheus.query(query)]

    async with serving(deployed, tmp_path, server) as rig:
        await asyncio.to_thread(until, lambda: told() == [({"pod": "digits-1"}, 0.0)], "the pod is quiet")
        async with clients(rig, 2):
            await asyncio.to_thread(until, lambda: told()[0][1] > 1.5, "the pod has two requests")
