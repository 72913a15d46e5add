"""What the metrics API has to ask the cluster: whom to trust, and who may read what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from inflight_operator.errors import InflightError
from inflight_operator.kube.client import Kube
from inflight_operator.metrics_api import FrontProxy

_TRUST: Final = ("kube-system", "extension-apiserver-authentication")


class Access:
    """Reads the front proxy's identity and delegates authorisation, both through the API server."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def trust(self) -> FrontProxy:
        """Whom to believe when it names a user: the API server's own front proxy."""
        found = await self._kube.get("ConfigMap", *_TRUST)
        if found is None:
            raise InflightError(f"ConfigMap {'/'.join(_TRUST)} is missing: the API server has no aggregation layer")
        return FrontProxy.from_config_map(found.get("data") or {})

    async def review(self, question: Mapping[str, Any]) -> bool:
        """The answer to the spec of a SubjectAccessReview."""
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": dict(question)}
        answer = await self._kube.ask("SubjectAccessReview", body)
        return bool((answer.get("status") or {}).get("allowed"))
