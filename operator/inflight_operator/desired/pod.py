"""The pod template of a revision: the user's server settings in a pod that passes the restricted Pod Security Standard.

It is rendered once, when the revision is born, and then pinned in its ControllerRevision: a newer operator that
would render it otherwise restarts nobody's pods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from inflight_operator.api import names
from inflight_operator.api.spec import Variant

DRAIN_DELAY_SECONDS: Final = 5
"""How long a stopping server keeps accepting, so that its removal reaches every router first."""

USER: Final = 65532
_MODEL_DIR: Final = "/models"
_SECRET_DIR: Final = "/etc/inflight/storage"  # noqa: S105 - a path
_DIGEST_DIR: Final = "/etc/inflight/digest"
_CLAIM_DIR: Final = "/etc/inflight/claim"
_FETCH_DEADLINE_SECONDS: Final = 1800


@dataclass(frozen=True)
class Installation:
    """What the installation decides for every pod: the server's image and how it may be pulled."""

    image: str
    pull_secrets: tuple[str, ...] = ()


def template(name: str, variant: Variant, installation: Installation) -> dict[str, Any]:
    """A PodTemplateSpec for `variant` of ModelDeployment `name`."""
    server = variant.server
    custom: Mapping[str, Any] = server.get("podTemplate") or {}
    timeout_seconds = -(-int(server["timeoutMilliseconds"]) // 1000)
    secrets = [{"name": secret} for secret in installation.pull_secrets] + list(custom.get("imagePullSecrets") or [])
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DRAIN_DELAY_SECONDS + timeout_seconds + 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_server(name, variant, installation, custom)],
        "volumes": _volumes(name, variant, custom),
    }
    if init := _init_containers(variant):
        spec["initContainers"] = init
    if secrets:
        spec["imagePullSecrets"] = secrets
    if account := server.get("serviceAccountName"):
        spec["serviceAccountName"] = account
    for field in ("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints"):
        if custom.get(field):
            spec[field] = custom[field]
    labels = names.labels(name, variant.name, variant.revision)
    if _identity(variant) == "az":
        labels |= {"azure.workload.identity/use": "true"}
    return {"metadata": {"labels": labels}, "spec": spec}


def _server(name: str, variant: Variant, installation: Installation, custom: Mapping[str, Any]) -> dict[str, Any]:
    mounts = [{"name": "models", "mountPath": _MODEL_DIR}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  # nosec B108 # in the pod
    if _secret(variant):
        mounts.append({"name": "storage-secret", "mountPath": _SECRET_DIR, "readOnly": True})  # type: ignore[dict-item]
    if _claim(variant):
        mounts.append({"name": "claim", "mountPath": _CLAIM_DIR, "readOnly": True})  # type: ignore[dict-item]
    if not variant.model.get("sha256"):
        mounts.append({"name": "digest", "mountPath": _DIGEST_DIR, "readOnly": True})  # type: ignore[dict-item]
    return {
        "name": "server",
        "image": variant.server.get("image") or installation.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["serve"],
        "env": _environment(name, variant) + list(custom.get("env") or []),
        "ports": [
            {"name": "http", "containerPort": names.HTTP_PORT, "protocol": "TCP"},
            # Named, not demanded: an image of the user's own may serve HTTP alone.
            {"name": "grpc", "containerPort": names.GRPC_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": names.METRICS_PORT, "protocol": "TCP"},
        ],
        "resources": dict(variant.server.get("resources") or {}),
        "securityContext": _container_security(),
        "startupProbe": _probe("/v2/health/ready", 1, _FETCH_DEADLINE_SECONDS),
        "readinessProbe": _probe("/v2/health/ready", 5, 2),
        # Patient: a busy machine must not turn into a restart storm.
        "livenessProbe": _probe("/v2/health/live", 10, 6),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts + list(custom.get("volumeMounts") or []),
    }


def _container_security() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _probe(path: str, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
        "successThreshold": 1,
    }


def _environment(name: str, variant: Variant) -> list[dict[str, str]]:
    model, server = variant.model, variant.server
    storage = model.get("storage") or {}
    values = {
        "INFLIGHT_MODEL_NAME": name,
        "INFLIGHT_VARIANT": variant.name,
        "INFLIGHT_REVISION": variant.revision,
        "INFLIGHT_MODEL_URI": model["uri"],
        "INFLIGHT_MODEL_SHA256": model.get("sha256", ""),
        "INFLIGHT_MODEL_DIGEST_FILE": "" if model.get("sha256") else f"{_DIGEST_DIR}/sha256",
        "INFLIGHT_MODEL_FORMAT": model["format"],
        "INFLIGHT_MODEL_ENTRYPOINT": model.get("entrypoint", ""),
        "INFLIGHT_STORAGE_ENDPOINT": storage.get("endpoint", ""),
        "INFLIGHT_STORAGE_REGION": storage.get("region", ""),
        "INFLIGHT_STORAGE_SECRET_DIR": _SECRET_DIR if _secret(variant) else "",
        "INFLIGHT_STORAGE_IDENTITY": "metadata" if _identity(variant) == "gs" else "",
        "INFLIGHT_CLAIM_DIR": _CLAIM_DIR if _claim(variant) else "",
        "INFLIGHT_CONCURRENCY": str(server["concurrency"]),
        "INFLIGHT_MAX_QUEUE": str(server["maxQueue"]),
        "INFLIGHT_TIMEOUT_MILLISECONDS": str(server["timeoutMilliseconds"]),
        **_optional(server),
        "INFLIGHT_MODEL_DIR": _MODEL_DIR,
        "INFLIGHT_PORT": str(names.HTTP_PORT),
        "INFLIGHT_METRICS_PORT": str(names.METRICS_PORT),
        "INFLIGHT_DRAIN_DELAY_SECONDS": str(DRAIN_DELAY_SECONDS),
        "INFLIGHT_TERMINATION_LOG": "/dev/termination-log",
    }
    return [{"name": key, "value": value} for key, value in values.items() if value != ""]


def _optional(server: Mapping[str, Any]) -> dict[str, str]:
    """What the server decides by itself unless told."""
    batching, cache = server.get("batching") or {}, server.get("cache") or {}
    gpus = ((server.get("resources") or {}).get("limits") or {}).get("nvidia.com/gpu")
    told = {
        "INFLIGHT_ISOLATION": server.get("isolation"),
        "INFLIGHT_BATCH_MAX_ROWS": batching.get("maxRows"),
        "INFLIGHT_BATCH_MAX_DELAY_MILLISECONDS": batching.get("maxDelayMilliseconds"),
        "INFLIGHT_CACHE_MAX_MEGABYTES": cache.get("maxMegabytes"),
        "INFLIGHT_CACHE_TTL_SECONDS": cache.get("ttlSeconds"),
        "INFLIGHT_DEVICE": "cuda" if gpus and str(gpus) != "0" else None,
    }
    return {key: str(value) for key, value in told.items() if value is not None}


def _secret(variant: Variant) -> str | None:
    return ((variant.model.get("storage") or {}).get("secretRef") or {}).get("name")


def _identity(variant: Variant) -> str:
    """The scheme of the store that is asked as the pod's ServiceAccount, "" for none.

    AWS gives every pod its account's identity; Azure where a label asks for it; on GKE nothing in the pod tells.
    """
    scheme = str(variant.model["uri"]).partition("://")[0]
    named = variant.server.get("serviceAccountName") and not _secret(variant)
    return scheme if named and scheme in ("s3", "gs", "az") else ""


def _claim(variant: Variant) -> str | None:
    scheme, _, rest = str(variant.model["uri"]).partition("://")
    return rest.partition("/")[0] if scheme == "pvc" else None


def _volumes(name: str, variant: Variant, custom: Mapping[str, Any]) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [{"name": "models", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    if secret := _secret(variant):
        volumes.append(
            {"name": "storage-secret", "secret": {"secretName": secret, "optional": True, "defaultMode": 0o440}}
        )
    if claim := _claim(variant):
        volumes.append({"name": "claim", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
    if not variant.model.get("sha256"):
        # Named from the start and there as soon as the first pod's digest is known: the template never changes.
        known = names.digest_name(names.revision_name(name, variant.name, variant.revision))
        volumes.append({"name": "digest", "configMap": {"name": known, "optional": True}})
    return volumes + list(custom.get("volumes") or [])


def _init_containers(variant: Variant) -> list[dict[str, Any]]:
    """A model that is an image copies itself into the shared directory: it needs /bin/sh, cp, and files in /models."""
    scheme, _, rest = str(variant.model["uri"]).partition("://")
    if scheme != "image":
        return []
    mount = "/inflight/models"
    return [
        {
            "name": "model",
            "image": rest,
            "imagePullPolicy": "IfNotPresent",
            "command": ["/bin/sh", "-c", f"cp -r /models/. {mount}/"],
            "resources": {
                "requests": {"cpu": "10m", "memory": "32Mi"},
                "limits": {"memory": "256Mi"},
            },
            "securityContext": _container_security(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [{"name": "models", "mountPath": mount}],
        }
    ]
