"""The only writer of replicas, in named cases. Everything between them is the HPA's."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import structlog

from inflight_operator.api.world import Object
from inflight_operator.kube.client import Kube

_log: Final = structlog.get_logger(__name__)


class Case(StrEnum):
    """Why replicas are written."""

    BIRTH = "birth"
    """A new revision starts as big as the one it replaces: it has no HPA before it has weight."""
    DEMAND = "demand"
    """There is no HPA at all: the operator follows the demand by the HPA's rules (`decide.scaling`)."""


class Scale:
    """Writes the scale subresource of a revision's Deployment."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def to(self, deployment: Object, replicas: int, case: Case) -> None:
        """Ask for `replicas`; `case` says by what right."""
        metadata = deployment["metadata"]
        _log.info("scale", deployment=metadata["name"], replicas=replicas, case=case)
        body = {"spec": {"replicas": replicas}}
        await self._kube.patch("Deployment", metadata["namespace"], metadata["name"], "scale", body)
