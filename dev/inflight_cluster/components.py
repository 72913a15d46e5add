"""The cluster's processes in the order in which they start. Pure: everything is given, nothing is read or run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from inflight_cluster import layout, node
from inflight_cluster.control_plane import ApiServer, ControllerManager, Etcd
from inflight_cluster.layout import Layout

GO_TOOLS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
    "kubectl",
    "helm",
)
DEBIAN_PROGRAMS = ("etcd", "containerd")
_ETCD = "http://127.0.0.1:2379"


@dataclass(frozen=True)
class Component:
    """One process: its arguments, the URL (http, https or unix) that says it is healthy, the files it reads."""

    name: str
    arguments: tuple[str, ...]
    health: str
    files: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What a person may choose at `up`. None: as it was, or Kubernetes' (and our) default at first."""

    audit: bool | None = None
    fsync: bool | None = None
    hpa_sync: str | None = None

    def over(self, earlier: Options) -> Options:
        """These choices, and the earlier ones where nothing is chosen now."""
        merged = {f.name: getattr(earlier if getattr(self, f.name) is None else self, f.name) for f in fields(self)}
        return Options(**merged)


def plan(where: Layout, programs: Mapping[str, Path], options: Options) -> list[Component]:
    """All components; each may be started as soon as the ones before it are healthy."""
    return [*base(where, programs, options), *control(where, programs, options), *on_node(where, programs)]


def base(where: Layout, programs: Mapping[str, Path], options: Options) -> list[Component]:
    """What needs nobody: etcd and containerd."""
    etcd = Etcd(programs["etcd"], where.state / "etcd", _ETCD, "http://127.0.0.1:2380", fsync=bool(options.fsync))
    file = where.config / "containerd.toml"
    return [
        Component("etcd", tuple(etcd.arguments()), f"{_ETCD}/health"),
        Component(
            "containerd",
            (str(programs["containerd"]), f"--config={file}"),
            f"unix:{where.containerd_socket}",
            {file: node.containerd(where), where.config / "cni" / "10-inflight.conflist": node.cni(where)},
        ),
    ]


def control(where: Layout, programs: Mapping[str, Path], options: Options) -> list[Component]:
    """kube-apiserver first, then the ones that talk to it."""
    policy = where.config / "audit-policy.json"
    server = ApiServer(
        program=programs["kube-apiserver"],
        pki=where.pki,
        etcd=_ETCD,
        address=layout.NODE_ADDRESS,
        port=layout.API_PORT,
        service_cidr=layout.SERVICE_CIDR,
        audit=(policy, where.audit_log) if options.audit else None,
    )
    manager = ControllerManager(
        program=programs["kube-controller-manager"],
        pki=where.pki,
        kubeconfig=where.kubeconfig_of("kube-controller-manager"),
        address="127.0.0.1",
        port=10257,
        hpa_sync=options.hpa_sync or "",
    )
    config = where.kubeconfig_of("kube-scheduler")
    scheduler = (
        str(programs["kube-scheduler"]),
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    )
    files = {policy: node.audit_policy()} if options.audit else {}
    return [
        Component("kube-apiserver", tuple(server.arguments()), f"{layout.API_URL}/readyz", files),
        Component("kube-controller-manager", tuple(manager.arguments()), "https://127.0.0.1:10257/healthz"),
        Component("kube-scheduler", scheduler, "https://127.0.0.1:10259/healthz"),
    ]


def on_node(where: Layout, programs: Mapping[str, Path]) -> list[Component]:
    """kubelet, kube-proxy and CoreDNS."""
    kubelet, proxy, corefile = (where.config / name for name in ("kubelet.json", "kube-proxy.json", "Corefile"))
    arguments = (
        str(programs["kubelet"]),
        f"--config={kubelet}",
        f"--kubeconfig={where.kubeconfig_of('kubelet')}",
        f"--hostname-override={where.name}",
        f"--node-ip={layout.NODE_ADDRESS}",
        f"--root-dir={where.state / 'kubelet'}",
        f"--cert-dir={where.state / 'kubelet' / 'pki'}",
    )
    return [
        Component(
            "kubelet",
            arguments,
            "http://127.0.0.1:10248/healthz",
            {kubelet: node.kubelet(where), where.resolv_conf: node.resolv_conf()},
        ),
        Component(
            "kube-proxy",
            (str(programs["kube-proxy"]), f"--config={proxy}"),
            "http://127.0.0.1:10256/healthz",
            {proxy: node.kube_proxy(where)},
        ),
        Component(
            "coredns",
            (str(programs["coredns"]), f"-conf={corefile}"),
            "http://127.0.0.1:8181/ready",
            {corefile: node.coredns(where)},
        ),
    ]
