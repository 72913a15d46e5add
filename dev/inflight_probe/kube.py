"""A small asyncio client of the Kubernetes API: get, list, apply, patch, delete, watch; and waiting.

Thin on purpose: times are measured around its calls, so nothing happens in it but one HTTP request on a kept
connection. Reads the first context of a kubeconfig with inline certificates or a token.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

Object = dict[str, Any]

KINDS: Mapping[str, tuple[str, str]] = {
    "ModelDeployment": ("serving.inflight.dev/v1alpha1", "modeldeployments"),
    "Deployment": ("apps/v1", "deployments"),
    "ReplicaSet": ("apps/v1", "replicasets"),
    "ControllerRevision": ("apps/v1", "controllerrevisions"),
    "HorizontalPodAutoscaler": ("autoscaling/v2", "horizontalpodautoscalers"),
    "EndpointSlice": ("discovery.k8s.io/v1", "endpointslices"),
    "Service": ("v1", "services"),
    "Secret": ("v1", "secrets"),
    "ConfigMap": ("v1", "configmaps"),
    "PersistentVolume": ("v1", "persistentvolumes"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "Pod": ("v1", "pods"),
    "Event": ("v1", "events"),
    "Namespace": ("v1", "namespaces"),
}
"""What is talked about here, by kind: API version and plural."""


class ApiError(Exception):
    """The API server said no: `status` is the HTTP status, the message is the server's own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


@dataclass(frozen=True)
class Access:
    """How to reach an API server: its address, TLS context and bearer token (may be empty)."""

    server: str
    tls: ssl.SSLContext
    token: str


def access(kubeconfig: Path | None = None) -> Access:
    """Read `kubeconfig` (default: $KUBECONFIG). KeyError or OSError when it is not usable."""
    config = yaml.safe_load(Path(kubeconfig or os.environ["KUBECONFIG"]).read_text())
    current = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
    cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == current["cluster"])
    user = next(u["user"] for u in config["users"] if u["name"] == current["user"])
    tls = ssl.create_default_context(cadata=_pem(cluster, "certificate-authority"))
    if "client-certificate" in user or "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as both:
            both.write(_pem(user, "client-certificate") + "\n" + _pem(user, "client-key"))
            both.flush()
            tls.load_cert_chain(both.name)
    return Access(cluster["server"], tls, user.get("token", ""))


def _pem(section: Mapping[str, str], name: str) -> str:
    if f"{name}-data" in section:
        return base64.b64decode(section[f"{name}-data"]).decode()
    return Path(section[name]).read_text()


class Kube:
    """The client. Use as `async with Kube(access()) as kube`."""

    def __init__(self, where: Access) -> None:
        self._where = where
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"authorization": f"Bearer {self._where.token}"} if self._where.token else {}
        self._http = aiohttp.ClientSession(
            self._where.server,
            connector=aiohttp.TCPConnector(ssl=self._where.tls, limit=0),
            headers=headers,
            read_bufsize=2**21,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()

    async def request(
        self, method: str, path: str, body: Object | list[Any] | None = None, content: str = "", **query: str
    ) -> Any:
        """One call; the decoded JSON answer, or the text where the answer is not JSON. Raises ApiError."""
        assert self._http is not None, "use `async with`"  # noqa: S101 - a caller's bug, not a runtime state
        headers = {"content-type": content or "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        async with self._http.request(method, path, data=data, headers=headers, params=query) as answer:
            text = await answer.text()
            is_json = "json" in answer.headers.get("content-type", "")
            decoded = json.loads(text) if is_json else text
            if answer.status >= 400:
                message = decoded.get("message", text) if isinstance(decoded, dict) else text
                raise ApiError(answer.status, message)
            return decoded

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object, or None when there is none."""
        try:
            found: Object = await self.request("GET", path(kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def list_all(self, kind: str, namespace: str = "", selector: str = "") -> list[Object]:
        """All objects of a kind (of one namespace), optionally by label selector."""
        answer = await self.request("GET", path(kind, namespace), labelSelector=selector)
        return [{"apiVersion": KINDS[kind][0], "kind": kind, **item} for item in answer["items"]]

    async def apply(self, manifest: Object, manager: str = "inflight-demo") -> Object:
        """Server-side apply, taking over fields that another manager set; the stored object."""
        kind, meta = manifest["kind"], manifest["metadata"]
        target = path(kind, meta.get("namespace", ""), meta["name"])
        done: Object = await self.request(
            "PATCH", target, manifest, "application/apply-patch+yaml", fieldManager=manager, force="true"
        )
        return done

    async def patch(self, kind: str, namespace: str, name: str, patch: Object | list[Any]) -> Object:
        """A merge patch (a dict) or a JSON patch (a list); the stored object."""
        content = "application/json-patch+json" if isinstance(patch, list) else "application/merge-patch+json"
        done: Object = await self.request(
            "PATCH", path(kind, namespace, name), patch, content, fieldManager="inflight-demo"
        )
        return done

    async def delete(self, kind: str, namespace: str, name: str) -> bool:
        """Delete in the background; False when it was not there."""
        try:
            await self.request("DELETE", path(kind, namespace, name), propagationPolicy="Background")
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    @asynccontextmanager
    async def watch(self, kind: str, namespace: str, selector: str = "") -> AsyncIterator[AsyncIterator[Object]]:
        """Events {type, object} from now on; the watch is open when the block is entered."""
        assert self._http is not None, "use `async with`"  # noqa: S101 - a caller's bug, not a runtime state
        listed = await self.request("GET", path(kind, namespace), labelSelector=selector, limit="1")
        query = {
            "watch": "1",
            "labelSelector": selector,
            "resourceVersion": listed["metadata"]["resourceVersion"],
        }
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._http.get(path(kind, namespace), params=query, timeout=timeout) as stream:
            stream.raise_for_status()
            yield _events(stream)

    async def wait(
        self,
        kind: str,
        namespace: str,
        name: str,
        done: Callable[[Object | None], bool],
        *,
        seconds: float,
        every: float = 0.2,
    ) -> Object | None:
        """Read until `done` says so; TimeoutError, with the last state, after `seconds`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            found = await self.get(kind, namespace, name)
            if done(found):
                return found
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"{kind} {namespace}/{name} after {seconds:.0f} s: {brief(found)}")
            await asyncio.sleep(every)

    async def wait_until(
        self, holds: Callable[[], Awaitable[bool]], what: str, *, seconds: float, every: float = 0.2
    ) -> None:
        """Ask until it holds; TimeoutError says `what` did not."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not await holds():
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"not within {seconds:.0f} s: {what}")
            await asyncio.sleep(every)


async def _events(stream: aiohttp.ClientResponse) -> AsyncIterator[Object]:
    async for line in stream.content:
        yield json.loads(line)


def path(kind: str, namespace: str = "", name: str = "") -> str:
    """The REST path of a kind, a namespace's list of it, or one object."""
    version, plural = KINDS[kind]
    root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
    inside = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{inside}/{plural}" + (f"/{name}" if name else "")


def condition(found: Object | None, kind: str) -> Object:
    """One condition of an object's status; {} when it has none."""
    listed = (found or {}).get("status", {}).get("conditions", [])
    return next((c for c in listed if c["type"] == kind), {})


def is_true(found: Object | None, kind: str) -> bool:
    """Whether a condition is True for the generation that is stored now."""
    if not found or found.get("status", {}).get("observedGeneration") != found["metadata"]["generation"]:
        return False
    return bool(condition(found, kind).get("status") == "True")


def brief(found: Object | None) -> str:
    """An object's conditions in one line, for errors."""
    if not found:
        return "not there"
    listed = found.get("status", {}).get("conditions", [])
    said = [f"{c['type']}={c['status']} {c.get('reason', '')}: {c.get('message', '')}" for c in listed]
    return "; ".join(said) or "no conditions yet"
