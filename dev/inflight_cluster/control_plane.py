"""The command line of every control-plane component. Pure: paths and addresses in, arguments out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Etcd:
    """Where etcd listens (http on an address that only this cluster can reach) and keeps its data."""

    program: Path
    data: Path
    client_url: str
    peer_url: str
    fsync: bool = False

    def arguments(self) -> list[str]:
        """fsync only where a test is about losing nothing: without it etcd is several times faster."""
        return [
            str(self.program),
            "--name=etcd",
            f"--data-dir={self.data}",
            f"--listen-client-urls={self.client_url}",
            f"--advertise-client-urls={self.client_url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster=etcd={self.peer_url}",
            "--logger=zap",
            "--log-level=warn",
            f"--unsafe-no-fsync={'false' if self.fsync else 'true'}",
        ]


@dataclass(frozen=True)
class ApiServer:
    """A kube-apiserver with RBAC and the aggregation layer; `pki` holds the files that credentials.py made."""

    program: Path
    pki: Path
    etcd: str
    address: str
    port: int
    service_cidr: str
    token_file: Path | None = None
    audit: tuple[Path, Path] | None = None
    nodes: bool = True

    def arguments(self) -> list[str]:
        """Without `nodes` Services are reached by ExternalName and pods need no service account."""
        pki = self.pki
        return [
            str(self.program),
            f"--etcd-servers={self.etcd}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--service-cluster-ip-range={self.service_cidr}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--profiling=false",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--kubelet-client-certificate={pki / 'apiserver-kubelet.crt'}",
            f"--kubelet-client-key={pki / 'apiserver-kubelet.key'}",
            f"--kubelet-certificate-authority={pki / 'ca.crt'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki / 'service-account.crt'}",
            f"--service-account-signing-key-file={pki / 'service-account.key'}",
            f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={pki / 'front-proxy.crt'}",
            f"--proxy-client-key-file={pki / 'front-proxy.key'}",
            *self._optional(),
        ]

    def _optional(self) -> list[str]:
        arguments = ["--enable-admission-plugins=NodeRestriction", "--enable-aggregator-routing=true"]
        if not self.nodes:
            arguments = ["--disable-admission-plugins=ServiceAccount"]
        if self.token_file:
            arguments.append(f"--token-auth-file={self.token_file}")
        if self.audit:
            policy, log = self.audit
            arguments += [f"--audit-policy-file={policy}", f"--audit-log-path={log}"]
        return arguments


@dataclass(frozen=True)
class ControllerManager:
    """All of Kubernetes' controllers, the HPA's and the garbage collector's among them."""

    program: Path
    pki: Path
    kubeconfig: Path
    address: str
    port: int
    hpa_sync: str = ""
    pod_cidr: str = ""
    service_cidr: str = ""

    def arguments(self) -> list[str]:
        arguments = [
            str(self.program),
            f"--kubeconfig={self.kubeconfig}",
            f"--authentication-kubeconfig={self.kubeconfig}",
            f"--authorization-kubeconfig={self.kubeconfig}",
            f"--bind-address={self.address}",
            f"--secure-port={self.port}",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--root-ca-file={self.pki / 'ca.crt'}",
            f"--service-account-private-key-file={self.pki / 'service-account.key'}",
            f"--cluster-signing-cert-file={self.pki / 'ca.crt'}",
            f"--cluster-signing-key-file={self.pki / 'ca.key'}",
        ]
        if self.pod_cidr:
            arguments += ["--allocate-node-cidrs=true", f"--cluster-cidr={self.pod_cidr}"]
            arguments += [f"--service-cluster-ip-range={self.service_cidr}"]
        if self.hpa_sync:
            arguments.append(f"--horizontal-pod-autoscaler-sync-period={self.hpa_sync}")
        return arguments
