"""A thin, typed door to the API server over `kubernetes.aio`. It knows verbs and paths, nothing about models.

The dynamic and generated clients are left out on purpose: they import model classes (tens of MiB) and turn JSON into
objects and back, while server-side apply wants plain JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from inflight_operator.api import names
from inflight_operator.api.world import Object
from inflight_operator.errors import TransientError
from inflight_operator.telemetry import WRITES

_TIMEOUT_SECONDS: Final = 30
_PAGE: Final = 500

PATHS: Final[Mapping[str, tuple[str, str]]] = {
    names.KIND: (f"/apis/{names.API_VERSION}", names.PLURAL),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "ControllerRevision": ("/apis/apps/v1", "controllerrevisions"),
    "Service": ("/api/v1", "services"),
    "Pod": ("/api/v1", "pods"),
    "Event": ("/api/v1", "events"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "HorizontalPodAutoscaler": ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "Secret": ("/api/v1", "secrets"),
    "ClusterRole": ("/apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    "APIService": ("/apis/apiregistration.k8s.io/v1", "apiservices"),
    "SubjectAccessReview": ("/apis/authorization.k8s.io/v1", "subjectaccessreviews"),
}


class ApiError(TransientError):
    """The API server said no. `status` is the HTTP code, `reason` its machine word (NotFound, Conflict, Invalid...)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"API server: {status} {reason}: {message}")
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Listing:
    """A full list and the resource version that it was read at."""

    items: list[Object]
    version: int


@dataclass(frozen=True)
class _Call:
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"


class Kube:
    """Verbs on resources, as JSON. Every failure is an ApiError or another TransientError."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls, kubeconfig: Path | None = None) -> Kube:
        """Connect by `kubeconfig`, or without one as this pod's service account (its token is renewed)."""
        configuration = Configuration()
        if kubeconfig is None:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
        return cls(ApiClient(configuration))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """One object; None when there is none. `namespace` is None for what lies in none."""
        try:
            return await self._send(_Call("GET", _path(kind, namespace, name)))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, kind: str, namespace: str | None = None, selector: str = "", *, cached: bool = False
    ) -> Listing:
        """Every object of a kind (in one namespace, or in all), read in pages.

        `cached`: what the API server remembers, perhaps of a moment ago. It need not ask etcd then, where a list by
        labels costs as much as all objects of the namespace.
        """
        items: list[Object] = []
        token = ""  # nosec B105 # where the next page begins
        while True:
            query = {"limit": str(_PAGE), "labelSelector": selector, "continue": token}
            if cached:
                query = {"labelSelector": selector, "resourceVersion": "0"}
            page = await self._send(_Call("GET", _path(kind, namespace), query))
            items += page["items"]
            token = page["metadata"].get("continue") or ""
            if not token:
                return Listing(items, int(page["metadata"]["resourceVersion"]))

    async def apply(self, manifest: Object) -> Object:
        """Server-side apply, forced: what we set is ours, also after somebody edited it by hand (KEP-555)."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true"}
        path = _path(kind, metadata.get("namespace"), metadata["name"])
        return await self._write("apply", kind, _Call("PATCH", path, query, manifest, "application/apply-patch+yaml"))

    async def patch(self, kind: str, namespace: str, name: str, subresource: str, body: Mapping[str, Any]) -> Object:
        """Merge-patch a subresource (status, scale)."""
        path = f"{_path(kind, namespace, name)}/{subresource}"
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._write(subresource, kind, _Call("PATCH", path, query, body, "application/merge-patch+json"))

    async def annotate(self, kind: str, namespace: str, name: str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations of somebody else's object, or take them away (None); where it is gone, nothing happens."""
        body = {"metadata": {"annotations": dict(annotations)}}
        query = {"fieldManager": names.FIELD_MANAGER}
        call = _Call("PATCH", _path(kind, namespace, quote(name, safe="")), query, body, "application/merge-patch+json")
        try:
            await self._write("annotate", kind, call)
        except ApiError as error:
            if error.status != 404:
                raise

    async def read(self, path: str) -> Object:
        """What lies at a path that is no resource's."""
        return await self._send(_Call("GET", path))

    async def ask(self, kind: str, body: Mapping[str, Any]) -> Object:
        """A question in the form of an object that is never stored (an access review)."""
        return await self._send(_Call("POST", _path(kind, None), {}, body))

    async def replace(self, kind: str, obj: Object) -> Object:
        """Write an object back as it was read and then changed. ApiError 409: somebody wrote it in between."""
        metadata = obj["metadata"]
        path = _path(kind, metadata.get("namespace"), metadata["name"])
        return await self._write("replace", kind, _Call("PUT", path, {"fieldManager": names.FIELD_MANAGER}, obj))

    async def create(self, kind: str, namespace: str, body: Mapping[str, Any]) -> Object:
        """Create an object. ApiError 409: there is one of that name."""
        return await self._write("create", kind, _Call("POST", _path(kind, namespace), {}, body))

    async def delete(self, kind: str, obj: Object) -> None:
        """Delete exactly the object that was seen (uid is a precondition); already gone is fine."""
        metadata = obj["metadata"]
        body = {"preconditions": {"uid": metadata["uid"]}, "propagationPolicy": "Background"}
        path = _path(kind, metadata.get("namespace"), metadata["name"])
        try:
            await self._write("delete", kind, _Call("DELETE", path, {}, body))
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def _write(self, verb: str, kind: str, call: _Call) -> Object:
        answer = await self._send(call)
        WRITES.labels(verb=verb, kind=kind).inc()
        return answer

    async def _send(self, call: _Call) -> Object:
        # The API server's keys are JSON of another name.
        headers = {"Accept": "application/json, */*", "Content-Type": call.content_type}
        asked = urlencode({key: value for key, value in call.query.items() if value})
        try:
            method, url, sent, payload, form = await self._client.param_serialize(
                call.method,
                call.path,
                query_params=[],
                header_params=headers,
                body=call.body,
                auth_settings=["BearerToken"],
            )
            target = f"{url}?{asked}" if asked else url
            response = await self._client.call_api(
                method, target, sent, payload, form, _request_timeout=_TIMEOUT_SECONDS
            )
            raw = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransientError(f"API server: {call.method} {call.path}: {type(error).__name__}: {error}") from error
        answer = _decode(raw)
        if response.status >= 400:
            text = answer.get("message") or raw[:200].decode(errors="replace")
            raise ApiError(response.status, answer.get("reason", ""), text)
        return answer


def _decode(raw: bytes) -> Object:
    try:
        answer = json.loads(raw)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _path(kind: str, namespace: str | None, name: str | None = None) -> str:
    group, plural = PATHS[kind]
    where = f"/namespaces/{namespace}" if namespace else ""
    return f"{group}{where}/{plural}" + (f"/{name}" if name else "")
