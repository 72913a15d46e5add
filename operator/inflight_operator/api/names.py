"""Every name, label and annotation that the operator gives. Pure, deterministic, at most 63 characters."""

from __future__ import annotations

import hashlib
from typing import Final

GROUP: Final = "serving.inflight.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "modeldeployments"
KIND: Final = "ModelDeployment"
API_VERSION: Final = f"{GROUP}/{VERSION}"
FIELD_MANAGER: Final = "inflight-operator"

MODEL_DEPLOYMENT: Final = f"{GROUP}/modeldeployment"
VARIANT: Final = f"{GROUP}/variant"
REVISION: Final = f"{GROUP}/revision"
APPLIED_HASH: Final = f"{GROUP}/applied-hash"
DIGEST: Final = f"{GROUP}/model-sha256"
SERVICE_NAME: Final = "kubernetes.io/service-name"

HTTP_PORT: Final = 8080
GRPC_PORT: Final = 8081
METRICS_PORT: Final = 9090
METRIC: Final = "inflight_requests"

_MAX_NAME: Final = 63

Key = tuple[str, str]
"""(namespace, name) of a ModelDeployment."""


def revision_name(name: str, variant: str, revision: str) -> str:
    """`<name>-<variant>-<hash8>`; what does not fit is cut and replaced by a hash of the whole."""
    stem = f"{name}-{variant}"
    room = _MAX_NAME - len(revision) - 1
    if len(stem) > room:
        digest = hashlib.sha256(stem.encode()).hexdigest()[:6]
        stem = f"{stem[: room - 7].rstrip('-')}-{digest}"
    return f"{stem}-{revision}"


def digest_name(revision: str) -> str:
    """The ConfigMap that tells the pods of a revision, by its Kubernetes name, which digest the first one had."""
    return f"{revision}-digest"


def labels(name: str, variant: str | None = None, revision: str | None = None) -> dict[str, str]:
    """Labels of a child. Without variant and revision: of what belongs to the whole ModelDeployment."""
    found = {
        MODEL_DEPLOYMENT: name,
        "app.kubernetes.io/name": "model-server" if variant else "model-deployment",
        "app.kubernetes.io/instance": name,
        "app.kubernetes.io/part-of": "inflight",
        "app.kubernetes.io/managed-by": FIELD_MANAGER,
    }
    if variant and revision:
        found |= {VARIANT: variant, REVISION: revision, "app.kubernetes.io/component": variant}
    return found


def selector(name: str, variant: str, revision: str) -> dict[str, str]:
    """The labels that pick exactly one revision's pods; immutable in a Deployment, so the fewest that do."""
    return {MODEL_DEPLOYMENT: name, VARIANT: variant, REVISION: revision}
