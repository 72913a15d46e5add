"""The APIService: the metrics API joins the cluster's own API once it answers, and never takes anybody's place.

An HPA asks the *group* custom.metrics.k8s.io in its preferred version: beside another adapter, in whatever version, one
of the two would get the other's questions. So the whole group must be free, or ours already.
"""

from __future__ import annotations

import base64
import ssl
from typing import Any, Final

import aiohttp
import structlog

from inflight_operator import tls
from inflight_operator.api.world import Object
from inflight_operator.errors import TransientError
from inflight_operator.installation import owner
from inflight_operator.kube.client import Kube
from inflight_operator.metrics_api import objects

_log: Final = structlog.get_logger(__name__)
_ANSWER_SECONDS: Final = 5.0


def name() -> str:
    """Of our APIService: Kubernetes wants version.group."""
    return f"{objects.VERSION}.{objects.GROUP}"


async def taken_by(kube: Kube, namespace: str) -> str | None:
    """Which other adapter's APIService serves the group, in words; None: it is free, or ours. TransientError."""
    listing = await kube.list("APIService")
    for found in listing.items:
        spec = found["spec"]
        if spec.get("group") == objects.GROUP and not _is_ours(found, namespace):
            service = spec.get("service") or {}
            at = f" of Service {service.get('namespace')}/{service.get('name')}" if service else ""
            return f"{found['metadata']['name']}{at}"
    return None


async def answers(address: str, port: int, host: str, material: tls.Material) -> None:
    """Ask our own endpoint as the API server will. TransientError: it doesn't answer as it should."""
    context = ssl.create_default_context(cadata=material.ca.decode())
    literal = f"[{address}]" if ":" in address else address
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_ANSWER_SECONDS)) as http,
            http.get(f"https://{literal}:{port}/healthz", ssl=context, server_hostname=host) as answer,
        ):
            answer.raise_for_status()
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise TransientError(f"the metrics API on {address}:{port} does not answer yet: {error}") from error


async def register(kube: Kube, namespace: str, bundle: bytes) -> None:
    """Make the APIService what it should be; nothing is written when it is. TransientError."""
    found = await kube.get("APIService", None, name())
    made = manifest(namespace, bundle)
    if found is not None and {key: found["spec"].get(key) for key in made["spec"]} == made["spec"]:
        return
    made["metadata"]["ownerReferences"] = [await owner.of_cluster(kube)]
    await kube.apply(made)
    _log.info("registered", api_service=name())


async def withdraw(kube: Kube, namespace: str) -> None:
    """Remove our APIService, if it is there: one without a server behind it blocks every namespace's deletion."""
    found = await kube.get("APIService", None, name())
    if found is not None and _is_ours(found, namespace):
        await kube.delete("APIService", found)
        _log.info("withdrew", api_service=name())


def manifest(namespace: str, bundle: bytes) -> dict[str, Any]:
    """The APIService whose server is known by the authorities in `bundle` (PEM)."""
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": name()},
        "spec": {
            "group": objects.GROUP,
            "version": objects.VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"name": owner.SERVICE, "namespace": namespace, "port": 443},
            "caBundle": base64.b64encode(bundle).decode(),
        },
    }


def _is_ours(found: Object, namespace: str) -> bool:
    service = found["spec"].get("service") or {}
    return (service.get("namespace"), service.get("name")) == (namespace, owner.SERVICE)
