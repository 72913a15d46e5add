"""The installation's certificates, made and renewed by the leader: an authority of its own, one certificate for the
routers (a Secret that they mount) and one for itself (files in memory, never stored anywhere).

    Secret inflight-ca    the authority with its key, the next one, and the last one's certificate
    Secret inflight-tls   ca.crt: all authorities to believe; tls.crt and tls.key: the routers' client certificate

When what is decided in decide/rotation.py. Both Secrets are the only ones that the operator may read, by name.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import structlog

from inflight_operator import tls
from inflight_operator.api.world import Object
from inflight_operator.decide import rotation
from inflight_operator.decide.rotation import AUTHORITY_LIFETIMES, Step
from inflight_operator.installation import issue, owner
from inflight_operator.installation.issue import Pair
from inflight_operator.kube.client import Kube

_log: Final = structlog.get_logger(__name__)

AUTHORITY: Final = "inflight-ca"
ROUTERS: Final = "inflight-tls"


@dataclass(frozen=True)
class Authorities:
    """Who signs, who will, and who has."""

    current: Pair
    following: Pair | None = None
    previous: bytes | None = None

    def bundle(self, now: datetime) -> bytes:
        """PEM of everybody to believe."""
        known = [self.current.certificate, self.following and self.following.certificate, self.previous]
        return b"".join(pem for pem in known if pem and (issue.left(pem, now) or 0) > 0)


class Certificates:
    """Keeps Secrets and own files good. `hosts`: DNS names of the operator's Service; `lifetime`: seconds."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        directory: Path,
        *,
        hosts: Sequence[str],
        lifetime: float,
        now: Callable[[], datetime] = issue.utc_now,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._directory = directory
        self._hosts = hosts
        self._lifetime = lifetime
        self._now = now

    async def refresh(self) -> float:
        """Renew what is due; returns seconds until the next look. TransientError: nothing has been half done."""
        now = self._now()
        authorities = await self._authorities(now)
        bundle = authorities.bundle(now)
        await self._routers(authorities.current, bundle, now)
        self._own(authorities.current, bundle, now)
        return rotation.look_again(self._lifetime)

    async def _authorities(self, now: datetime) -> Authorities:
        secret = await self._kube.get("Secret", self._namespace, AUTHORITY)
        known = _authorities(_content(secret))
        whole = AUTHORITY_LIFETIMES * self._lifetime
        current = issue.left(known.current.certificate if known else None, now)
        following = issue.left(known.following.certificate if known and known.following else None, now)
        step = rotation.authority(current, following, self._lifetime)
        if step is Step.KEEP and known:
            return known
        if step is Step.PROMOTE and known and known.following:
            made = Authorities(known.following, None, known.current.certificate)
        elif step is Step.PREPARE and known:
            made = replace(known, following=issue.authority(now, whole))
        else:
            made = Authorities(issue.authority(now, whole))
        await self._write(AUTHORITY, "Opaque", secret, _stored(made))
        _log.info("the installation's authority", step=step.value)
        return made

    async def _routers(self, signer: Pair, bundle: bytes, now: datetime) -> None:
        secret = await self._kube.get("Secret", self._namespace, ROUTERS)
        content = _content(secret)
        if content.get("ca.crt") == bundle and not self._due(content.get("tls.crt"), signer, now):
            return
        made = issue.leaf(signer, "inflight-router", (), now, self._lifetime)
        data = {"ca.crt": bundle, "tls.crt": made.certificate, "tls.key": made.key}
        await self._write(ROUTERS, "kubernetes.io/tls", secret, data)
        _log.info("the routers' certificate is new")

    def _own(self, signer: Pair, bundle: bytes, now: datetime) -> None:
        try:
            known = tls.read(self._directory)
        except OSError:
            known = None
        if known and known.ca == bundle and not self._due(known.certificate, signer, now):
            return
        made = issue.leaf(signer, "inflight-operator", self._hosts, now, self._lifetime)
        tls.write(self._directory, tls.Material(bundle, made.certificate, made.key))
        _log.info("the operator's certificate is new")

    def _due(self, certificate: bytes | None, signer: Pair, now: datetime) -> bool:
        left = issue.left(certificate, now)
        return rotation.renew(left, self._lifetime) or not issue.signed_by(certificate, signer)

    async def _write(self, name: str, kind: str, found: Object | None, content: Mapping[str, bytes]) -> None:
        """Write a Secret as it was found; somebody else's write in between makes it a TransientError."""
        data = {key: base64.b64encode(value).decode() for key, value in content.items()}
        if found:
            await self._kube.replace("Secret", {**found, "data": data})
            return
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "namespace": self._namespace,
                "ownerReferences": [await owner.of_namespaced(self._kube, self._namespace)],
            },
            "type": kind,
            "data": data,
        }
        await self._kube.create("Secret", self._namespace, body)


def _content(secret: Object | None) -> dict[str, bytes]:
    data: Mapping[str, Any] = (secret or {}).get("data") or {}
    return {key: base64.b64decode(value) for key, value in data.items()}


def _authorities(content: Mapping[str, bytes]) -> Authorities | None:
    current, following = (
        Pair(content[f"{name}.crt"], content[f"{name}.key"]) if f"{name}.key" in content else None
        for name in ("tls", "next")
    )
    return Authorities(current, following, content.get("previous.crt")) if current else None


def _stored(made: Authorities) -> dict[str, bytes]:
    content = {"tls.crt": made.current.certificate, "tls.key": made.current.key}
    if made.following:
        content |= {"next.crt": made.following.certificate, "next.key": made.following.key}
    if made.previous:
        content["previous.crt"] = made.previous
    return content
