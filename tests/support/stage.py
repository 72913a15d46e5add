"""The stage of an e2e test: a namespace of its own on the real cluster, and what can be done on it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from inflight_demo import cluster, ready, store
from inflight_probe import operators
from inflight_probe.infer import output, request_body, sender, session, through
from inflight_probe.kube import Kube, Object, condition
from inflight_probe.load import Run, Send, steady
from inflight_probe.scaling import OWNER

PATIENT = 200
"""Queue of a replica: on a busy test machine a pod may get no CPU for a moment; requests should wait then."""
SMALL = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}}
ONE = (request_body("x", [[1.0]]),)


@dataclass(frozen=True)
class Stage:
    """A test's own namespace; everything in it goes with it."""

    kube: Kube
    router: str
    namespace: str

    async def apply(self, manifest: Object) -> Object:
        """Apply a manifest into the namespace."""
        manifest["metadata"]["namespace"] = self.namespace
        return await self.kube.apply(manifest, manager="e2e")

    async def ready(self, name: str, seconds: float = 90) -> Object:
        """Wait for a ModelDeployment to be Ready."""
        return await ready.wait_ready(self.kube, self.namespace, name, seconds=seconds, say=print)

    async def serve(self, name: str, *variants: Object, **spec: Any) -> Object:
        """Apply a ModelDeployment of small pods and wait for it to be Ready."""
        await self.apply(deployment(name, *variants, **spec))
        return await self.ready(name)

    async def get(self, kind: str, name: str) -> Object:
        """An object that has to be there."""
        found = await self.kube.get(kind, self.namespace, name)
        assert found is not None, f"{kind} {self.namespace}/{name} is not there"
        return found

    async def owned(self, kind: str, name: str) -> list[Object]:
        """The objects of a kind that belong to a ModelDeployment."""
        return await self.kube.list_all(kind, self.namespace, f"{OWNER}={name}")

    async def says(self, name: str, status: str, reasons: set[str], seconds: float) -> Object:
        """Wait until Ready has `status` for one of `reasons`; the condition."""

        def told(found: Object | None) -> bool:
            ready_now = condition(found, "Ready")
            return ready_now.get("status") == status and ready_now.get("reason") in reasons

        found = await self.kube.wait("ModelDeployment", self.namespace, name, told, seconds=seconds)
        return condition(found, "Ready")

    @asynccontextmanager
    async def sending(self, name: str, variant: str | None = None) -> AsyncIterator[Send]:
        """A sender of one small request to a ModelDeployment, by the router's path form."""
        async with session(timeout_seconds=20) as http:
            yield sender(http, through(self.router, self.namespace, name, variant), ONE, _first)

    @asynccontextmanager
    async def load(self, name: str, rate: float) -> AsyncIterator[Run]:
        """Steady load without retries while the block runs; the run is complete after it."""
        async with self.sending(name) as send, steady(send, rate=rate) as run:
            yield run

    @asynccontextmanager
    async def without_operator(self) -> AsyncIterator[None]:
        """The installation's operator is away while the block runs, and ready again after it."""
        before = await self.kube.get("Deployment", cluster.SYSTEM, "inflight-operator")
        assert before is not None, "the chart is not installed"
        await self._operators(0)
        try:
            yield
        finally:
            await self._operators(before["spec"]["replicas"])

    async def _operators(self, replicas: int) -> None:
        await self.kube.patch("Deployment", cluster.SYSTEM, "inflight-operator", {"spec": {"replicas": replicas}})

        async def scaled() -> bool:
            return await operators.all_ready(self.kube, cluster.SYSTEM, replicas)

        await self.kube.wait_until(scaled, f"{replicas} ready operator pods", seconds=60)
        if replicas:
            await self.led()

    async def led(self) -> Object:
        """The operator pod that leads, once one does."""
        found: list[Object] = []

        async def leads() -> bool:
            with contextlib.suppress(LookupError):
                found.append(await operators.leader(self.kube, cluster.SYSTEM))
            return bool(found)

        await self.kube.wait_until(leads, "an operator leads", seconds=60)
        return found[-1]


def _first(_number: int, answer: Mapping[str, Any]) -> Any:
    return output(answer)


def deployment(name: str, *variants: Object, server: Mapping[str, Any] | None = None, **spec: Any) -> Object:
    """A ModelDeployment whose pods ask for little."""
    return {
        "apiVersion": "serving.inflight.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "variants": list(variants),
            "server": {"resources": SMALL, "maxQueue": PATIENT, **(server or {})},
            **spec,
        },
    }


def model(key: str, **more: Any) -> Object:
    """A model in the demo's store."""
    endpoint = f"http://s3.{cluster.NAMESPACE}.svc:{store.PORT}"
    storage = {"endpoint": endpoint, "secretRef": {"name": store.CREDENTIALS}}
    python = {"format": "python", "entrypoint": "model:Model"} if key.endswith(".py") else {}
    return {"uri": f"s3://models/{key}", "storage": storage, **python, **more}


def variant(name: str, key: str, weight: int | None = None, **more: Any) -> Object:
    """A variant that serves a model in the demo's store."""
    return {"name": name, "model": model(key, **more)} | ({} if weight is None else {"weight": weight})
