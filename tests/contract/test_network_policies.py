"""Who may talk to whom, by the NetworkPolicies as they are rendered. Only a network plugin can enforce them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from inflight_demo.manifests import NAMESPACE, render
from inflight_operator.api import names

MODELS = Path(__file__).parents[2] / "manifests" / "model-servers-policy.yaml"
ON = ("--set", "networkPolicy.enabled=true")
Policy = dict[str, Any]


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod, or (without a namespace) an address outside. `ports`: a pod's, by name."""

    address: str
    namespace: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)


def allowed(policies: Iterable[Policy], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether both ends' policies let the connection through (k8s.io/api/networking/v1): a pod that no policy of a
    direction selects may do anything in it, any other only what some rule of one of them says."""
    found = list(policies)
    wire = (port, protocol, target)
    return _lets(found, "Egress", source, target, wire) and _lets(found, "Ingress", target, source, wire)


def _lets(policies: list[Policy], direction: str, mine: End, other: End, wire: tuple[int, str, End]) -> bool:
    key, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    selecting = [
        policy["spec"]
        for policy in policies
        if policy["metadata"].get("namespace", mine.namespace) == mine.namespace
        and direction in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], mine.labels)
    ]
    rules = [rule for spec in selecting for rule in spec.get(key, [])]
    return not selecting or any(
        _peer(rule.get(peers), other, mine.namespace) and _port(rule.get("ports"), *wire) for rule in rules
    )


def _peer(peers: list[dict[str, Any]] | None, other: End, home: str | None) -> bool:
    if not peers:
        return True
    for peer in peers:
        if block := peer.get("ipBlock"):
            address = ip_address(other.address)
            inside = address in ip_network(block["cidr"])
            if inside and not any(address in ip_network(out) for out in block.get("except", [])):
                return True
        elif other.namespace is not None and _selects(peer.get("podSelector", {}), other.labels):
            selector = peer.get("namespaceSelector")
            there = {"kubernetes.io/metadata.name": other.namespace}
            if other.namespace == home if selector is None else _selects(selector, there):
                return True
    return False


def _port(ports: list[dict[str, Any]] | None, port: int, protocol: str, target: End) -> bool:
    return not ports or any(
        target.ports.get(p["port"], p["port"]) == port and p.get("protocol", "TCP") == protocol for p in ports
    )


def _selects(selector: dict[str, Any], labels: Mapping[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert all(e["operator"] == "In" for e in expressions), "the evaluator knows no other operator"
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(e["key"]) in e["values"] for e in expressions
    )


@functools.cache
def rendered(*options: str) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(render(*ON, *options)) if item]


def policies(*options: str) -> list[Policy]:
    """The chart's, and the example for models in namespace demo."""
    found = [item for item in rendered(*options) if item["kind"] == "NetworkPolicy"]
    example = yaml.safe_load(MODELS.read_text())
    example["metadata"]["namespace"] = "demo"
    return [*found, example]


def component(name: str) -> End:
    """A pod of the chart's, as its Deployment would make it."""
    wanted = f"inflight-{name}"
    (deployment,) = [i for i in rendered() if i["kind"] == "Deployment" and i["metadata"]["name"] == wanted]
    template = deployment["spec"]["template"]
    ports = {p["name"]: p["containerPort"] for c in template["spec"]["containers"] for p in c.get("ports", [])}
    return End("10.0.0.9", NAMESPACE, template["metadata"]["labels"], ports)


def model(namespace: str) -> End:
    """A model server's pod, as the operator makes it."""
    ports = {"http": names.HTTP_PORT, "grpc": names.GRPC_PORT, "metrics": names.METRICS_PORT}
    return End("10.0.1.9", namespace, names.labels("digits", "stable", "aaaa"), ports)


OPERATOR, ROUTER, MODEL = component("operator"), component("router"), model("demo")
CLIENT = End("10.0.2.9", "shop", {"app": "shop"})
PROMETHEUS = End("10.0.3.9", "monitoring", {"app": "prometheus"})
DNS = End("10.0.4.9", "kube-system", {"k8s-app": "kube-dns"})
API_SERVER, OUTSIDE, METADATA = End("203.0.113.1"), End("198.51.100.7"), End("169.254.169.254")


@pytest.mark.parametrize(
    ("source", "target", "port", "may"),
    [
        pytest.param(CLIENT, ROUTER, 8080, True, id="clients ask the router"),
        pytest.param(OUTSIDE, ROUTER, 8443, True, id="also over TLS from outside"),
        pytest.param(CLIENT, ROUTER, 9901, False, id="nobody reaches a router's administration"),
        pytest.param(ROUTER, OPERATOR, 18000, True, id="routers hear the operator"),
        pytest.param(CLIENT, OPERATOR, 18000, False, id="nobody else gets routes"),
        pytest.param(MODEL, OPERATOR, 18000, False, id="no model either"),
        pytest.param(API_SERVER, OPERATOR, 8443, True, id="the API server asks for metrics"),
        pytest.param(PROMETHEUS, OPERATOR, 9090, True, id="Prometheus reads the operator"),
        pytest.param(PROMETHEUS, ROUTER, 9091, True, id="Prometheus reads the routers"),
        pytest.param(PROMETHEUS, MODEL, 9090, True, id="Prometheus reads the models"),
        pytest.param(ROUTER, MODEL, 8080, True, id="routers ask models"),
        pytest.param(ROUTER, MODEL, 8081, True, id="over gRPC too"),
        pytest.param(ROUTER, MODEL, 9090, False, id="but not for metrics"),
        pytest.param(OPERATOR, MODEL, 8080, True, id="the operator asks for a digest"),
        pytest.param(OPERATOR, MODEL, 8081, False, id="and for nothing else"),
        pytest.param(CLIENT, MODEL, 8080, False, id="clients go through the router"),
        pytest.param(model("other"), MODEL, 8080, False, id="models don't talk to each other"),
        pytest.param(OPERATOR, API_SERVER, 6443, True, id="the operator has an API server"),
        pytest.param(ROUTER, API_SERVER, 443, False, id="routers have none"),
        pytest.param(ROUTER, OUTSIDE, 80, False, id="routers reach nothing outside"),
        pytest.param(MODEL, OUTSIDE, 443, True, id="a model is fetched"),
        pytest.param(MODEL, METADATA, 443, False, id="but not from the cloud's metadata"),
        pytest.param(MODEL, METADATA, 80, False, id="on no port"),
    ],
)
def test_who_may_talk_to_whom(source: End, target: End, port: int, may: bool) -> None:
    assert allowed(policies(), source, target, port) is may


@pytest.mark.parametrize("source", [OPERATOR, ROUTER, MODEL], ids=["operator", "router", "model"])
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_all_can_resolve_names(source: End, protocol: str) -> None:
    assert allowed(policies(), source, DNS, 53, protocol)


def test_with_named_namespaces_the_models_of_others_are_out_of_reach() -> None:
    some = policies("--set", "watchNamespaces={demo}")
    assert allowed(some, ROUTER, MODEL, 8080)
    assert not allowed(some, ROUTER, model("other"), 8080)
    assert allowed(policies(), ROUTER, model("other"), 8080)


def test_an_identity_provider_can_be_allowed() -> None:
    """Its keys are the operator's to read, never a router's."""
    assert allowed(policies(), OPERATOR, OUTSIDE, 443)
    rule = '[{"to":[{"ipBlock":{"cidr":"198.51.100.7/32"}}],"ports":[{"port":8443,"protocol":"TCP"}]}]'
    assert allowed(policies("--set-json", f"networkPolicy.operatorEgress={rule}"), OPERATOR, OUTSIDE, 8443)
    assert not allowed(policies(), OPERATOR, OUTSIDE, 8443)
    assert not allowed(policies(), ROUTER, OUTSIDE, 443)


def test_another_api_server_port_can_be_named() -> None:
    assert allowed(policies("--set", "networkPolicy.apiServerPorts={16443}"), OPERATOR, API_SERVER, 16443)
    assert not allowed(policies(), OPERATOR, API_SERVER, 16443)


def test_without_the_value_there_is_no_policy() -> None:
    assert "NetworkPolicy" not in render()
