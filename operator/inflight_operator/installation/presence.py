"""How the leader is found: routers by the Service's endpoint, HPAs by the APIService.

Both lead here only once it serves, and both are put right again when somebody else changed them.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

import structlog

from inflight_operator import tls
from inflight_operator.apply.report import write_event
from inflight_operator.insisting import insist
from inflight_operator.installation import aggregation, endpoint, owner
from inflight_operator.kube.client import Kube
from inflight_operator.settings import MetricsMode, Settings

_log: Final = structlog.get_logger(__name__)

LOOK_EVERY_SECONDS: Final = 10.0
_REPLACED_EVERY_SECONDS: Final = 0.2


class StandDownError(Exception):
    """Something changed that a leader is built on: let somebody (perhaps ourselves) lead anew."""


class Presence:
    """The leader's place in the cluster. Begins with `adapter`, which says who scales."""

    def __init__(self, settings: Settings, kube: Kube) -> None:
        self._settings = settings
        self._kube = kube
        self._other: str | None = None
        self._here = endpoint.Place(settings.pod_name, settings.pod_ip)

    async def adapter(self) -> str | None:
        """Another metrics adapter that has the place of ours, in words; None: there is none, or we want none."""
        if self._settings.metrics_api is not MetricsMode.BUILTIN:
            return None
        self._other = await insist(
            partial(aggregation.taken_by, self._kube, self._settings.namespace),
            "can't see whether another adapter serves custom metrics",
        )
        if self._other:
            await insist(partial(self._tell, self._other), "can't tell that another adapter serves custom metrics")
        return self._other

    async def keep(self) -> None:
        """Lead routers and API server here, for ever. StandDownError when another adapter came or went."""
        told = False
        while True:
            await insist(self._here_and_joined, "not everybody is sent here yet")
            if not told:
                told = True
                _log.info("routers and HPAs are served from here")
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def _here_and_joined(self) -> None:
        await self._publish()
        await self._join()

    async def replaced(self) -> None:
        """Wait until the Service leads to somebody else. TransientError."""
        while True:
            if await endpoint.leads_to(self._kube, self._settings.namespace) != self._here:
                return
            await asyncio.sleep(_REPLACED_EVERY_SECONDS)

    async def _publish(self) -> None:
        settings = self._settings
        if await endpoint.leads_to(self._kube, settings.namespace) == self._here:
            return
        ports = {"xds": settings.xds_port, "metrics-api": settings.metrics_api_port}
        await endpoint.publish(self._kube, settings.namespace, self._here, ports)

    async def _join(self) -> None:
        """The API server asks us for metrics, or doesn't, as it should."""
        settings = self._settings
        if settings.watch_namespaces:
            return  # without rights on the whole cluster there never was an APIService
        builtin = settings.metrics_api is MetricsMode.BUILTIN
        if builtin:
            now = await aggregation.taken_by(self._kube, settings.namespace)
            if now != self._other:
                raise StandDownError(f"custom.metrics.k8s.io is served by {now or 'nobody else any more'}")
        if self._other or not builtin:
            await aggregation.withdraw(self._kube, settings.namespace)
        elif settings.tls_dir:
            material = tls.read(settings.tls_dir)
            await aggregation.answers(settings.pod_ip, settings.metrics_api_port, settings.hosts[0], material)
            await aggregation.register(self._kube, settings.namespace, material.ca)

    async def _tell(self, other: str) -> None:
        message = (
            f"custom.metrics.k8s.io is served by {other}, and a cluster has room for one adapter: the operator sets "
            "replicas itself. Remove the other one, or install with metricsApi.mode none."
        )
        _log.warning(message)
        service = await self._kube.get("Service", self._settings.namespace, owner.SERVICE)
        if service:
            about = {"apiVersion": "v1", "kind": "Service", "metadata": service["metadata"]}
            await write_event(self._kube, about, "OtherMetricsAdapter", message, warning=True)
