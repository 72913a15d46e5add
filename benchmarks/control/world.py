"""What every row needs: the API, the router, a namespace with models to serve, and ModelDeployments to measure on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from inflight_demo import cluster, models, published, reach, ready, store
from inflight_demo.models import Catalogue
from inflight_demo.traffic import router
from inflight_probe.kube import Kube, Object, access
from inflight_probe.scaling import OWNER

NAMESPACE = "bench"
_READY_SECONDS = 240
_GONE_SECONDS = 400
"""After an outage of the API server the garbage collector needs minutes to see the world again."""
WAITING, SECOND_WAITING = "waiting/1/model.py", "waiting/2/model.py"
"""The waiting example, and the same once more under another key: a new revision that answers alike."""


@dataclass(frozen=True)
class World:
    """Handles of one run. `quick` asks for a smoke run: the same steps, too few of them for a number."""

    kube: Kube
    router: str
    catalogue: Catalogue
    quick: bool

    def some(self, full: int, quick: int) -> int:
        """A count, by mode."""
        return quick if self.quick else full

    @asynccontextmanager
    async def deployed(self, manifest: Object) -> AsyncIterator[Object]:
        """A ModelDeployment that is Ready inside the block and gone after it."""
        name = manifest["metadata"]["name"]
        await self.kube.apply(manifest)
        try:
            yield await ready.wait_ready(self.kube, NAMESPACE, name, seconds=_READY_SECONDS, say=print)
        finally:
            await self.remove(name)

    async def remove(self, name: str) -> None:
        """Delete a ModelDeployment and wait for its pods to go, so that the next row has the machine."""
        await self.kube.delete("ModelDeployment", NAMESPACE, name)
        selector = f"{OWNER}={name}"
        await self.kube.wait_until(lambda: self._no_pods(selector), f"pods of {name} gone", seconds=_GONE_SECONDS)

    async def _no_pods(self, selector: str) -> bool:
        return not await self.kube.list_all("Pod", NAMESPACE, selector)


@asynccontextmanager
async def opened(*, quick: bool) -> AsyncIterator[World]:
    """Enter the cluster's network, publish the models, make the namespace."""
    cluster.enter()
    async with Kube(access()) as kube:
        await kube.apply(cluster.namespace(NAMESPACE))
        catalogue = models.catalogue()
        keys = await store.ensure(kube, cluster.NAMESPACE)
        uploads = published.uploads(catalogue)
        second = [replace(u, key=SECOND_WAITING) for u in uploads if u.key == WAITING]
        async with reach.service(kube, cluster.NAMESPACE, "s3", store.PORT) as url:
            store.publish(url, keys, [*uploads, *second])
        await store.share(kube, cluster.NAMESPACE, NAMESPACE)
        async with router(kube) as url:
            yield World(kube, url, catalogue, quick)


def variant(name: str, weight: int, key: str, **model: Any) -> Object:
    """One variant that serves s3://models/<key> from the demo's store."""
    endpoint = f"http://s3.{cluster.NAMESPACE}.svc:{store.PORT}"
    storage = {"endpoint": endpoint, "secretRef": {"name": store.CREDENTIALS}}
    return {"name": name, "weight": weight, "model": {"uri": f"s3://models/{key}", "storage": storage, **model}}


def deployment(
    name: str, variants: list[Object], server: Mapping[str, Any], autoscaling: Mapping[str, Any] | None = None
) -> Object:
    """A ModelDeployment in the benchmarks' namespace; its pods ask for little CPU, so that several fit two cores."""
    resources = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
    spec = {"variants": variants, "server": {"resources": resources, **server}, "autoscaling": dict(autoscaling or {})}
    return {
        "apiVersion": "serving.inflight.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }
