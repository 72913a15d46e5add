"""Configuration files of what runs on the node: containerd, CNI, kubelet, kube-proxy, CoreDNS. Pure.

docs/local-cluster.md tells why the unusual values are there.
"""

from __future__ import annotations

import json
from typing import Any

from inflight_cluster import layout
from inflight_cluster.layout import Layout

PAUSE_IMAGE = "docker.io/inflight/pause:0.1.0"
CNI_PLUGINS = "/usr/lib/cni"


def containerd(where: Layout) -> str:
    """containerd 1.6's TOML. Without restrict_oom_score_adj no pod starts where CAP_SYS_RESOURCE is missing."""
    return f"""version = 2
root = "{where.state / "containerd"}"
state = "{where.containerd_state}"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{where.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{where.config / "cni"}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{where.state / "runc"}"
"""


def cni(where: Layout) -> str:
    """One veth pair for each pod; no bridge, so no br_netfilter is needed."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": layout.POD_CIDR}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(where.state / "ipam"),
    }
    plugins = [
        {"type": "ptp", "ipMasq": False, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return _json({"cniVersion": "0.4.0", "name": where.name, "plugins": plugins})


def kubelet(where: Layout) -> str:
    """Evicts and collects nothing: a developer's disk is fuller than a node's, and images cannot be pulled again."""
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"x509": {"clientCAFile": str(where.pki / "ca.crt")}, "webhook": {"enabled": True}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(where.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(where.pki / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{where.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{where.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "clusterDNS": [layout.NODE_ADDRESS],
        "clusterDomain": layout.CLUSTER_DOMAIN,
        "resolvConf": str(where.resolv_conf),
        "maxPods": layout.MAX_PODS,
        "podLogsDir": str(where.state / "pod-logs"),
        "volumePluginDir": str(where.state / "volume-plugins"),
        "localStorageCapacityIsolation": False,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
    }
    return _json(config)


def kube_proxy(where: Layout) -> str:
    """nftables mode; conntrack limits belong to the machine and stay as they are."""
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(where.kubeconfig_of("kube-proxy"))},
        "clusterCIDR": layout.POD_CIDR,
        "hostnameOverride": where.name,
        "oomScoreAdj": 0,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return _json(config)


def coredns(where: Layout) -> str:
    """Answers for the cluster's domain only: nothing outside can be reached from inside."""
    return f"""{layout.CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
    bind {layout.NODE_ADDRESS}
    errors
    ready 127.0.0.1:8181
    kubernetes {layout.CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {where.kubeconfig_of("coredns")} inflight
        ttl 5
    }}
    cache 5
}}
. {{
    bind {layout.NODE_ADDRESS}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def resolv_conf() -> str:
    return f"nameserver {layout.NODE_ADDRESS}\n"


def audit_policy() -> str:
    """Writes only, metadata only: enough to count them by user, verb and object."""
    rules = [
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "Metadata", "omitStages": ["RequestReceived"]},
    ]
    return _json({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules})


def dns_access() -> str:
    """What CoreDNS may read."""
    rules: list[dict[str, Any]] = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "inflight:coredns"},
        "rules": rules,
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "inflight:coredns"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "inflight:coredns"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "coredns"}],
    }
    return _json({"apiVersion": "v1", "kind": "List", "items": [role, binding]})


def _json(value: Any) -> str:
    return json.dumps(value, indent=1) + "\n"
