"""Addresses and paths inside one cluster. Pure.

Every instance has its own network namespace, so all of them use the same addresses and ports.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NODE_ADDRESS = "10.250.0.1"
NODE_NETWORK = "10.250.0.1/24"
POD_CIDR = "10.244.0.0/21"  # 2,000 addresses: more than the pods a node may have, old ones are reused late
SERVICE_CIDR = "10.96.0.0/16"
CLUSTER_DOMAIN = "cluster.local"
API_PORT = 6443
API_URL = f"https://{NODE_ADDRESS}:{API_PORT}"
MAX_PODS = 500


@dataclass(frozen=True)
class Layout:
    """Where each file of a cluster is. Everything is below `state`, so that removing it removes all.

    `name` is also the node's, the cgroup's and the mark of our processes.
    """

    name: str
    state: Path

    @property
    def netns(self) -> Path:
        """A file with the network namespace mounted on it."""
        return self.state / "netns"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def config(self) -> Path:
        return self.state / "config"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def containerd_socket(self) -> Path:
        return self.state / "containerd.sock"

    @property
    def containerd_state(self) -> Path:
        """Holds the mounts of running containers and pods' network namespaces."""
        return self.state / "containerd-state"

    @property
    def resolv_conf(self) -> Path:
        return self.config / "resolv.conf"

    @property
    def audit_log(self) -> Path:
        return self.logs / "audit.log"

    @property
    def kubeconfig(self) -> Path:
        return self.pki / "admin.kubeconfig"

    def kubeconfig_of(self, component: str) -> Path:
        return self.pki / f"{component}.kubeconfig"
