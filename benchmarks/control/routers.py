"""What both routers have in force, read from Envoy's own admin interface, which only its pod can reach.

This is the true end of a change: later than the acknowledgement that the operator hears, and told by Envoy itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp

from benchmarks.control.arrivals import Arrivals
from inflight_demo.cluster import SYSTEM
from inflight_probe import pods
from inflight_probe.kube import Kube

_ADMIN = "http://127.0.0.1:9901"
SELECTOR = "app.kubernetes.io/name=inflight,app.kubernetes.io/component=router"
_EVERY = 0.005


class Router:
    """One Envoy's admin interface."""

    def __init__(self, name: str, http: aiohttp.ClientSession) -> None:
        self.name = name
        self._http = http

    async def split(self, namespace: str, name: str) -> Mapping[str, str]:
        """Where a ModelDeployment's weights are in the runtime: keys by Envoy cluster (`<namespace>/<revision>`); {} if
        it has no split."""
        dump = await self._get("/config_dump", resource="dynamic_route_configs")
        for entry in dump.get("configs", []):
            for host in entry["route_config"].get("virtual_hosts", []):
                if entry["route_config"]["name"] == "inflight" and host["name"] == f"{namespace}/{name}":
                    return _keys(host["routes"][0])
        return {}

    async def weights(self, split: Mapping[str, str]) -> Mapping[str, int]:
        """Those in force, by Envoy cluster."""
        entries = (await self._get("/runtime")).get("entries", {})
        return {cluster: int(entries[key]["final_value"]) for cluster, key in split.items() if key in entries}

    async def endpoints(self, prefix: str) -> set[str]:
        """Addresses (ip:port) of all endpoints of the clusters whose name starts with `prefix`."""
        dump = await self._get("/clusters", format="json")
        found = [c for c in dump.get("cluster_statuses", []) if c["name"].startswith(prefix)]
        addresses = [host["address"]["socket_address"] for c in found for host in c.get("host_statuses", [])]
        return {f"{a['address']}:{a['port_value']}" for a in addresses}

    async def _get(self, path: str, **query: str) -> dict[str, Any]:
        async with self._http.get(f"{_ADMIN}{path}", params=query) as answer:
            answer.raise_for_status()
            decoded: dict[str, Any] = json.loads(await answer.read())
            return decoded


def _keys(route: Mapping[str, Any]) -> Mapping[str, str]:
    split = route.get("route", {}).get("weighted_clusters", {})
    return {c["name"]: f"{split['runtime_key_prefix']}.{c['name']}" for c in split.get("clusters", [])}


@asynccontextmanager
async def opened(kube: Kube) -> AsyncIterator[list[Router]]:
    """Every running router. LookupError when there are not two."""
    found = [p for p in await kube.list_all("Pod", SYSTEM, SELECTOR) if not p["metadata"].get("deletionTimestamp")]
    if len(found) != 2:
        raise LookupError(f"{len(found)} router pods match {SELECTOR} in {SYSTEM}, expected two")
    async with AsyncExitStack() as stack:
        routers = []
        for pod in found:
            connector = pods.loopback(pod["metadata"]["uid"])
            http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            routers.append(Router(pod["metadata"]["name"], http))
        yield routers


@asynccontextmanager
async def polling(
    routers: Iterable[Router], look: Callable[[Router], Any], *, every: float = _EVERY
) -> AsyncIterator[Arrivals]:
    """Note (router name, thing) for every hashable thing that `look`, a coroutine, finds; again and again."""
    arrivals = Arrivals()

    async def poll(router: Router) -> None:
        while True:
            for thing in await look(router):
                arrivals.note((router.name, thing))
            await asyncio.sleep(every)

    tasks = [asyncio.create_task(poll(router)) for router in routers]
    try:
        yield arrivals
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
