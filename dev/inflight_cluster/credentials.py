"""Which certificates a cluster needs and for whom: one list, made in one directory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from inflight_cluster import kubeconfig, pki

_MASTERS = ("system:masters",)
_SERVICE_HOSTS = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")


def control_plane(directory: Path, hosts: Iterable[str], cluster_domain: str = "cluster.local") -> pki.Pair:
    """Certificates for the API server (serving on `hosts`) and its front proxy; returns the cluster's CA."""
    ca = pki.authority(directory, "ca")
    names = [*hosts, *_SERVICE_HOSTS, f"kubernetes.default.svc.{cluster_domain}", "localhost"]
    pki.issue(directory, "apiserver", ca, user="kube-apiserver", hosts=names)
    pki.issue(directory, "apiserver-kubelet", ca, user="apiserver-kubelet", groups=_MASTERS)
    pki.issue(directory, "service-account", ca, user="service-account")
    front_proxy = pki.authority(directory, "front-proxy-ca")
    pki.issue(directory, "front-proxy", front_proxy, user="front-proxy")
    return ca


def client(directory: Path, ca: pki.Pair, name: str, *, server: str, user: str, groups: Iterable[str] = ()) -> Path:
    """A kubeconfig `directory`/`name`.kubeconfig for a Kubernetes user."""
    pair = pki.issue(directory, name, ca, user=user, groups=groups)
    return kubeconfig.write(directory / f"{name}.kubeconfig", server=server, ca=ca.certificate, client=pair)


def administrator(directory: Path, ca: pki.Pair, *, server: str) -> Path:
    """The kubeconfig of cluster-admin."""
    return client(directory, ca, "admin", server=server, user="admin", groups=_MASTERS)
