"""What the router adds to the latency at a fixed rate, and how many requests it can pass on.

`h2load` asks over HTTP/1.1 from within the cluster's network, a pod itself and the same pod through a router in turn.
At its limit the router is beside an Envoy with the least static configuration (one route, one cluster), started here.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.control.result import Result
from benchmarks.control.world import NAMESPACE, World
from benchmarks.traffic.prober import serving, waiting
from inflight_demo.cluster import SYSTEM
from inflight_demo.console import Console
from inflight_probe.infer import request_body
from inflight_probe.scaling import OWNER
from inflight_probe.stats import percentile

_CONNECTIONS, _RATE = 64, 1_000
_ROUTER = "app.kubernetes.io/name=inflight,app.kubernetes.io/component=router"
_PORT, _ADMIN = 18_080, 18_081


async def latency(world: World, console: Console) -> list[Result]:
    """1,000 requests/s over 64 connections, five rounds of each path; then as many as there can be."""
    name, rounds, seconds = "latency", world.some(5, 1), world.some(10, 2)
    infer = f"/v2/models/{name}/infer"
    async with serving(world, waiting(name, {"main": 100}, 1, wait=0)):
        pod = (await world.kube.list_all("Pod", NAMESPACE, f"{OWNER}={name}"))[0]["status"]["podIP"]
        router = (await world.kube.list_all("Pod", SYSTEM, _ROUTER))[0]["status"]["podIP"]
        direct, routed = f"http://{pod}:8080{infer}", f"http://{router}:8080/{NAMESPACE}/{name}{infer}"
        fixed: dict[str, list[Sequence[float]]] = {direct: [], routed: []}
        limit: dict[str, list[float]] = {}
        async with _plain(pod) as plain:
            for number in range(rounds):
                for url, found in fixed.items():
                    found.append(await _ask(url, seconds, rate=_RATE))
                for url in (routed, plain + infer):
                    limit.setdefault(url, []).append(len(await _ask(url, seconds)) / seconds)
                console.progress(number + 1, rounds, "rounds")
    p50, p99 = (
        [percentile(r, q) - percentile(d, q) for d, r in zip(fixed[direct], fixed[routed], strict=True)]
        for q in (50, 99)
    )
    ours, theirs = (median(found) for found in limit.values())
    return [
        Result(
            suite="traffic",
            row=name,
            what="the router's added latency at 1,000 requests/s over 64 connections; its limit beside a plain Envoy's",
            goal="p50 <= 0.4 ms, p99 <= 2 ms; >= 0.9x",
            measured=f"p50 {median(p50):.2f} ms, p99 {median(p99):.2f} ms (of {rounds} rounds each, in turn); "
            f"{ours:,.0f}/s, {ours / theirs:.2f}x of {theirs:,.0f}/s",
            kept=median(p50) <= 0.4 and median(p99) <= 2 and ours >= 0.9 * theirs,
            data={"added_p50_ms": p50, "added_p99_ms": p99, "limit_per_s": list(limit.values())},
            quick=world.quick,
        )
    ]


async def _ask(url: str, seconds: int, rate: int | None = None) -> list[float]:
    """Milliseconds of every right answer. AssertionError when one was not."""
    with tempfile.TemporaryDirectory() as directory:
        log, body = Path(directory) / "log", Path(directory) / "body"
        body.write_bytes(request_body("x", [[1.0]]))
        options = ["--h1", "-t1", f"-c{_CONNECTIONS}", f"-D{seconds}", f"--log-file={log}", f"--data={body}"]
        options += ["-H", "content-type: application/json", *([f"--rps={rate / _CONNECTIONS}"] if rate else [])]
        process = await asyncio.create_subprocess_exec("h2load", *options, url, stdout=asyncio.subprocess.DEVNULL)
        assert await process.wait() == 0, f"h2load {url} failed"
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    assert rows, f"nothing was answered by {url}"
    assert {row[1] for row in rows} == {"200"}, f"{url} answered { ({row[1] for row in rows}) }"
    return [int(row[2]) / 1000 for row in rows]


@asynccontextmanager
async def _plain(pod: str) -> AsyncIterator[str]:
    """An Envoy that does nothing but pass on; its URL."""
    manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    passes = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    routes = [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "pod"}}]}]
    connections: dict[str, Any] = {"@type": manager, "stat_prefix": "plain", "route_config": {"virtual_hosts": routes}}
    connections["http_filters"] = [{"name": "router", "typed_config": passes}]
    chain = {"filters": [{"name": "http", "typed_config": connections}]}
    endpoint = {"endpoint": {"address": _address(pod, 8080)}}
    assignment = {"cluster_name": "pod", "endpoints": [{"lb_endpoints": [endpoint]}]}
    config = {
        "admin": {"address": _address("127.0.0.1", _ADMIN)},
        "static_resources": {
            "listeners": [{"name": "plain", "address": _address("127.0.0.1", _PORT), "filter_chains": [chain]}],
            "clusters": [{"name": "pod", "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment}],
        },
    }
    envoy = str(files("envoy") / "_bin" / "envoy")
    options = ["--config-yaml", json.dumps(config), "--disable-hot-restart", "--concurrency", "2", "-l", "error"]
    process = await asyncio.create_subprocess_exec(envoy, *options)
    try:
        await asyncio.sleep(2)
        yield f"http://127.0.0.1:{_PORT}"
    finally:
        process.terminate()
        await process.wait()


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
