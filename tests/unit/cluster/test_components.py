"""Command lines and configuration files, and the traps that they avoid."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from inflight_cluster import components, layout, node
from inflight_cluster.components import DEBIAN_PROGRAMS, GO_TOOLS, Component, Options
from inflight_cluster.layout import Layout

WHERE = Layout("inflight-x", Path("/state/x"))
PROGRAMS = {name: Path("/programs") / name for name in (*GO_TOOLS, *DEBIAN_PROGRAMS)}


def plan(**options: bool | str) -> dict[str, Component]:
    return {c.name: c for c in components.plan(WHERE, PROGRAMS, Options(**options))}  # type: ignore[arg-type]


def test_components_start_after_those_they_need() -> None:
    assert list(plan()) == [
        "etcd",
        "containerd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "coredns",
    ]


def test_every_file_of_the_cluster_is_below_its_state_directory() -> None:
    for component in plan(audit=True).values():
        assert all(path.is_relative_to(WHERE.state) for path in component.files)


@pytest.mark.parametrize(
    ("options", "component", "argument"),
    [
        pytest.param({}, "etcd", "--unsafe-no-fsync=true", id="fast by default"),
        pytest.param({"fsync": True}, "etcd", "--unsafe-no-fsync=false", id="safe where nothing may be lost"),
        pytest.param(
            {"hpa_sync": "5s"},
            "kube-controller-manager",
            "--horizontal-pod-autoscaler-sync-period=5s",
            id="a faster HPA for tests",
        ),
        pytest.param(
            {"audit": True}, "kube-apiserver", "--audit-log-path=/state/x/logs/audit.log", id="writes are counted"
        ),
        pytest.param({}, "kube-apiserver", "--enable-aggregator-routing=true", id="metrics API served by a pod"),
        pytest.param({}, "kube-apiserver", "--kubelet-preferred-address-types=InternalIP", id="logs and exec work"),
        pytest.param({}, "kubelet", "--hostname-override=inflight-x", id="the node has the cluster's name"),
    ],
)
def test_arguments(options: dict[str, bool | str], component: str, argument: str) -> None:
    assert argument in plan(**options)[component].arguments


@pytest.mark.parametrize("flag", ["--audit", "--horizontal-pod-autoscaler-sync-period", "--token-auth-file"])
def test_what_is_not_asked_for_is_left_to_kubernetes(flag: str) -> None:
    arguments = [argument for component in plan().values() for argument in component.arguments]
    assert not [argument for argument in arguments if argument.startswith(flag)]


def test_containerd_starts_pods_without_privileges_that_are_missing_here() -> None:
    config = tomllib.loads(node.containerd(WHERE))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["netns_mounts_under_state_dir"] is True, "else 'down' could not tell our pods' namespaces from others'"
    assert cri["sandbox_image"] == node.PAUSE_IMAGE
    assert config["root"].startswith("/state/x/")


def test_the_network_of_pods_holds_as_many_as_the_node_takes() -> None:
    config = json.loads(node.cni(WHERE))
    ((block,),) = config["plugins"][0]["ipam"]["ranges"]
    bits = int(block["subnet"].split("/")[1])
    assert 2 ** (32 - bits) > 2 * layout.MAX_PODS
    assert config["name"] == WHERE.name


def test_kubelet_never_removes_an_image_that_no_registry_could_give_back() -> None:
    config = json.loads(node.kubelet(WHERE))
    assert config["imageGCHighThresholdPercent"] == 100
    assert config["cgroupRoot"] == "/inflight-x"
    assert config["maxPods"] == 500


def test_dns_asks_nobody_outside() -> None:
    assert "forward" not in node.coredns(WHERE)
    assert layout.NODE_ADDRESS in node.resolv_conf()
