"""A Reconciler on a real API server without nodes: the test plays the kubelet, the routers and the clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inflight_operator.api import names
from inflight_operator.api.jwks import Keys
from inflight_operator.api.names import Key
from inflight_operator.desired.pod import Installation
from inflight_operator.errors import TransientError
from inflight_operator.keyring import KeyRing
from inflight_operator.kube.client import ApiError, Kube, _Call, _path
from inflight_operator.observe.listing import refresh
from inflight_operator.observe.store import CHILD_KINDS, Store
from inflight_operator.reconcile import Reconciler
from inflight_operator.scaling_signal import Signal
from inflight_operator.settings import MetricsMode
from inflight_operator.xds.model import Endpoint, Pace, Programmed, RouteSpec

NAMESPACE = "default"


class CrashError(BaseException):
    """The operator process ended right here."""


class FragileKube(Kube):
    """Counts writes; with `crash_after` n, the n-th write reaches the API server but its reply never arrives."""

    writes = 0
    crash_after: int | None = None
    refuses: str = ""
    """A kind that nobody may write."""

    async def _write(self, verb: str, kind: str, call: Any) -> dict[str, Any]:
        if kind == self.refuses:
            raise ApiError(403, "Forbidden", "by somebody's webhook")
        answer = await super()._write(verb, kind, call)
        if kind != "Event":
            self.writes += 1
            if self.writes == self.crash_after:
                raise CrashError(f"{verb} {kind}")
        return answer


@dataclass
class Routers:
    """The control plane with routers that acknowledge at once (unless `silent`)."""

    routes: dict[Key, RouteSpec] = field(default_factory=dict)
    silent: bool = False

    def set(self, key: Key, spec: RouteSpec) -> None:
        self.routes[key] = spec

    def remove(self, key: Key) -> None:
        self.routes.pop(key, None)

    def programmed(self, key: Key) -> Programmed:
        return Programmed(acknowledged=key in self.routes and not self.silent)


class Bench:
    """One operator over one API server. `restart` forgets everything that a killed process would."""

    def __init__(self, kube: FragileKube) -> None:
        self.kube = kube
        self.now = 1000.0
        self.in_flight: dict[str, float | None] = {}
        self.routers = Routers()
        self.digests: dict[str, str] = {}
        self.keys: dict[str, Keys] = {}
        self.asked: list[str] = []
        self.woken: list[Key] = []
        self.paces: dict[str, dict[str, Pace]] = {}
        self.by_endpoint: dict[str, dict[Endpoint, float]] = {}
        self.restart()

    def restart(self, metrics_api: MetricsMode = MetricsMode.BUILTIN, *, access_closed: bool = False) -> None:
        self.store = Store()
        self.signal = Signal(lambda _, name: self.in_flight.get(name, 0.0), lambda: self.now)
        self.keyring = KeyRing(self._read_keys, lambda _key: None)
        self.reconciler = Reconciler(
            store=self.store,
            kube=self.kube,
            plane=self.routers,
            signal=self.signal,
            installation=Installation("inflight/model-server:test"),
            router_host="inflight-router.inflight-system.svc.cluster.local",
            metrics_api=metrics_api,
            router_tls=False,
            keyring=self.keyring,
            access_closed=access_closed,
            clock=lambda: self.now,
            wake=self.woken.append,
            host_domains=("ml.example",),
            paces=lambda _namespace, name: self.paces.get(name),
            by_endpoint=lambda _namespace, name: self.by_endpoint.get(name, {}),
            idlest_first=True,
            ask=self._ask,
        )

    async def _read_keys(self, source: str) -> Keys:
        """What an issuer shows; the others can't be reached."""
        if source not in self.keys:
            raise TransientError(f"{source} can't be reached")
        return self.keys[source]

    async def _ask(self, address: str, _model: str) -> str | None:
        """What the pod at `address` says that its model's digest is; the others can't be reached."""
        self.asked.append(address)
        return self.digests.get(address)

    async def reconcile(self, name: str) -> float | None:
        """One reconcile with a fresh view; what it is told last is what the API server holds."""
        await self.refresh()
        return await self.reconciler.reconcile((NAMESPACE, name))

    async def refresh(self) -> None:
        """See the world as it is."""
        await refresh(self.kube, self.store, [NAMESPACE])

    async def settle(self, name: str, seconds: float = 120.0, *, ready: bool = True) -> None:
        """Reconcile until nothing is asked for any more, pods becoming ready in between."""
        end = self.now + seconds
        while self.now < end:
            if ready:
                await self.make_ready(name)
            before = self.kube.writes
            again = await self.reconcile(name)
            if again is None and self.kube.writes == before and not (ready and await self.make_ready(name)):
                return
            self.now += again or 0.1
        raise AssertionError(f"{name} did not settle in {seconds} s")

    async def make_ready(self, name: str, variant: str | None = None) -> bool:
        """Give every live revision's Service as many ready endpoints as its Deployment has replicas."""
        changed = False
        listing = await self.kube.list("Deployment", NAMESPACE, f"{names.MODEL_DEPLOYMENT}={name}")
        alive = {d["metadata"]["name"] for d in listing.items}
        for deployment in listing.items:
            labels = deployment["metadata"]["labels"]
            if variant in (None, labels[names.VARIANT]):
                changed |= await self.endpoints(deployment, deployment["spec"].get("replicas", 1))
        for piece in (await self.kube.list("EndpointSlice", NAMESPACE, f"{names.MODEL_DEPLOYMENT}={name}")).items:
            if piece["metadata"]["labels"][names.SERVICE_NAME] not in alive:
                await Kube.delete(self._quiet(), "EndpointSlice", piece)
        return changed

    async def endpoints(self, deployment: Mapping[str, Any], ready: int) -> bool:
        """Set the ready endpoints of a revision; true when that changed anything."""
        name = deployment["metadata"]["name"]
        manifest = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "labels": {**deployment["metadata"]["labels"], names.SERVICE_NAME: name},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": [f"10.1.{i // 250}.{i % 250 + 1}"], "conditions": {"ready": True}} for i in range(ready)
            ],
        }
        before = await self.kube.get("EndpointSlice", NAMESPACE, name)
        if before and len(before.get("endpoints") or []) == ready:
            return False
        await self._quiet().apply(manifest)
        return True

    async def pods(self, name: str) -> dict[Endpoint, str]:
        """Make the pods of a revision's endpoints; their names by endpoint."""
        found = await self.kube.get("EndpointSlice", NAMESPACE, name)
        assert found is not None
        made = {}
        for number, endpoint in enumerate(found["endpoints"]):
            pod = f"{name}-{number}"
            metadata = {"name": pod, "namespace": NAMESPACE, "labels": found["metadata"]["labels"]}
            spec = {"containers": [{"name": "server", "image": "inflight/model-server:test"}]}
            await self._quiet().create(
                "Pod", NAMESPACE, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
            )
            endpoint["targetRef"] = {"kind": "Pod", "name": pod, "namespace": NAMESPACE}
            made[Endpoint(endpoint["addresses"][0], 8080)] = pod
        await self._rewrite(found)
        return made

    async def unready(self, name: str) -> None:
        """A revision's endpoints are there still, and none is ready."""
        found = await self.kube.get("EndpointSlice", NAMESPACE, name)
        assert found is not None
        for endpoint in found["endpoints"]:
            endpoint["conditions"] = {"ready": False, "serving": False, "terminating": False}
        await self._rewrite(found)

    async def _rewrite(self, found: dict[str, Any]) -> None:
        wanted = {key: found[key] for key in ("apiVersion", "kind", "addressType", "ports", "endpoints")}
        metadata = {key: found["metadata"][key] for key in ("name", "namespace", "labels")}
        await self._quiet().apply({**wanted, "metadata": metadata})

    def _quiet(self) -> Kube:
        """The same API server, for writes that are the test's own."""
        return Kube(self.kube._client)

    async def put(self, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The user's `kubectl apply`."""
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec,
        }
        return await self._quiet().apply(manifest)

    async def get(self, kind: str, name: str) -> dict[str, Any]:
        found = await self.kube.get(kind, NAMESPACE, name)
        assert found is not None, f"{kind} {name} is missing"
        return found

    async def names_of(self, kind: str, name: str) -> list[str]:
        listing = await self.kube.list(kind, NAMESPACE, f"{names.MODEL_DEPLOYMENT}={name}")
        return sorted(item["metadata"]["name"] for item in listing.items)

    async def wipe(self, name: str) -> None:
        """Delete the ModelDeployment and, as the garbage collector would, what it owned."""
        await self._quiet().delete(names.KIND, await self.get(names.KIND, name))
        await self._collect(f"{names.MODEL_DEPLOYMENT}={name}")
        self.routers.remove((NAMESPACE, name))
        self.restart()

    async def leave(self) -> None:
        """Delete everything: what a test leaves behind makes every list of the next ones longer."""
        await self._quiet()._send(_Call("DELETE", _path(names.KIND, NAMESPACE), {}))
        await self._collect(names.MODEL_DEPLOYMENT)
        await self.kube.close()

    async def _collect(self, selector: str) -> None:
        for kind in CHILD_KINDS:
            await self._quiet()._send(_Call("DELETE", _path(kind, NAMESPACE), {"labelSelector": selector}))

    async def state(self, name: str) -> str:
        """Everything that matters, canonical: equal for two ways that lead to the same world."""
        found: dict[str, Any] = {}
        for kind in (names.KIND, *CHILD_KINDS):
            selector = "" if kind == names.KIND else f"{names.MODEL_DEPLOYMENT}={name}"
            for item in (await self.kube.list(kind, NAMESPACE, selector)).items:
                if kind == names.KIND and item["metadata"]["name"] != name:
                    continue
                found[f"{kind}/{item['metadata']['name']}"] = _canonical(kind, item)
        found["route"] = repr(self.routers.routes.get((NAMESPACE, name)))
        return json.dumps(found, sort_keys=True, indent=1)


def _canonical(kind: str, item: Mapping[str, Any]) -> dict[str, Any]:
    status = dict(item.get("status") or {}) if kind == names.KIND else {}
    for condition in status.get("conditions") or []:
        condition.pop("lastTransitionTime", None)
        condition.pop("observedGeneration", None)
    status.pop("observedGeneration", None)
    spec = {k: v for k, v in (item.get("spec") or {}).items() if k not in ("clusterIP", "clusterIPs")}
    return {"labels": item["metadata"].get("labels"), "spec": spec, "data": item.get("data"), "status": status}
