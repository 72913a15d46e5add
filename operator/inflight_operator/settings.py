"""The operator's settings: one reader of the environment, checked at start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from inflight_operator.errors import InflightError

_DURATION: Final = re.compile(r"[1-9][0-9]{0,5}[hms]")


class MetricsMode(StrEnum):
    """Who tells the HPAs how many requests are in flight."""

    BUILTIN = "builtin"
    """The operator: it serves custom.metrics.k8s.io."""
    PROMETHEUS_ADAPTER = "prometheus-adapter"
    """An adapter that the cluster has, from what Prometheus scraped from the pods."""
    NONE = "none"
    """Nobody: there is no HPA, the operator sets the replicas itself."""


@dataclass(frozen=True)
class Settings:
    """Everything the installation decides (the chart sets it)."""

    namespace: str
    """Where the operator and the router run."""
    watch_namespaces: tuple[str, ...]
    """Namespaces to serve; empty: all."""
    cluster_domain: str
    """The cluster's DNS domain, usually cluster.local."""
    model_server_image: str
    """Image of model servers that bring none of their own."""
    image_pull_secrets: tuple[str, ...]
    """Names of pull secrets for that image, in each ModelDeployment's namespace."""
    router_service: str
    """Name of the router's Service in `namespace`."""
    router_tls: bool
    """The routers serve HTTPS."""
    access_closed: bool
    """A ModelDeployment that says nothing about it is for its own namespace only."""
    metrics_api: MetricsMode
    xds_port: int
    metrics_api_port: int
    metrics_port: int
    """Health and Prometheus metrics, plain HTTP."""
    tls_dir: Path | None
    """Directory with ca.crt, tls.crt and tls.key; None: plain xDS and no metrics API (tests only)."""
    certificate_seconds: int | None
    """Lifetime of the certificates that the operator makes and puts into `tls_dir`; None: somebody else does."""
    pod_name: str
    """By which the operators of an installation tell themselves apart."""
    pod_ip: str
    """Where this one is reached."""
    host_domains: tuple[str, ...] = ()
    """Below which ModelDeployments may have hosts of their own."""
    idlest_first: bool = True
    """Of pods that are too many the idlest leave first; needs the right to change pods."""
    kubeconfig: Path | None = None
    """How to reach the API server from outside a cluster; None: as the pod's service account."""
    workers: int = 4
    """ModelDeployments reconciled at a time."""

    @property
    def router_host(self) -> str:
        """The router's DNS name."""
        return f"{self.router_service}.{self.namespace}.svc.{self.cluster_domain}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The DNS names of the operator's own Service."""
        short = f"inflight-operator.{self.namespace}.svc"
        return short, f"{short}.{self.cluster_domain}"


def read(environ: Mapping[str, str]) -> Settings:
    """Settings from INFLIGHT_* variables; InflightError names the one that is wrong."""
    told = _Variables(environ)
    tls = told.text("TLS_DIR", "")
    mode = MetricsMode(told.one_of("METRICS_API_MODE", *MetricsMode))
    if mode is MetricsMode.BUILTIN and not tls:
        mode = MetricsMode.NONE  # the API server talks TLS to what serves metrics, or not at all
    return Settings(
        namespace=told.text("NAMESPACE"),
        watch_namespaces=told.several("WATCH_NAMESPACES"),
        cluster_domain=told.text("CLUSTER_DOMAIN", "cluster.local"),
        model_server_image=told.text("MODEL_SERVER_IMAGE"),
        image_pull_secrets=told.several("IMAGE_PULL_SECRETS"),
        router_service=told.text("ROUTER_SERVICE", "inflight-router"),
        router_tls=told.one_of("ROUTER_TLS", "false", "true") == "true",
        host_domains=told.several("HOST_DOMAINS"),
        idlest_first=told.one_of("IDLEST_FIRST", "true", "false") == "true",
        access_closed=told.one_of("ACCESS_DEFAULT", "open", "closed") == "closed",
        metrics_api=mode,
        xds_port=told.port("XDS_PORT", 18000),
        metrics_api_port=told.port("METRICS_API_PORT", 8443),
        metrics_port=told.port("METRICS_PORT", 9090),
        tls_dir=Path(tls) if tls else None,
        certificate_seconds=told.seconds("CERTIFICATE_LIFETIME"),
        pod_name=told.text("POD_NAME"),
        pod_ip=told.text("POD_IP"),
        kubeconfig=Path(environ["KUBECONFIG"]) if environ.get("KUBECONFIG") else None,
    )


@dataclass(frozen=True)
class _Variables:
    """INFLIGHT_* variables, by what comes after that; each reader raises InflightError with the name in it."""

    environ: Mapping[str, str]

    def text(self, name: str, default: str | None = None) -> str:
        value = self.environ.get(f"INFLIGHT_{name}", default)
        if not value and default is None:
            raise InflightError(f"INFLIGHT_{name} is not set; the chart sets it on the operator's Deployment")
        return value or ""

    def port(self, name: str, default: int) -> int:
        raw = self.text(name, str(default))
        if not raw.isdigit() or not 0 <= int(raw) < 65536:
            raise InflightError(f"INFLIGHT_{name} must be a port number, not {raw!r}")
        return int(raw)

    def several(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.text(name, "").split(",") if part.strip())

    def seconds(self, name: str) -> int | None:
        raw = self.text(name, "")
        if raw and not _DURATION.fullmatch(raw):
            raise InflightError(f"INFLIGHT_{name} must be a duration such as 2160h, 30m or 90s, not {raw!r}")
        return int(raw[:-1]) * {"h": 3600, "m": 60, "s": 1}[raw[-1]] if raw else None

    def one_of(self, name: str, *choices: str) -> str:
        value = self.text(name, choices[0])
        if value not in choices:
            raise InflightError(f"INFLIGHT_{name} must be {' or '.join(choices)}, not {value!r}")
        return value
