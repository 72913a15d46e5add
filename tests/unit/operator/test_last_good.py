"""The last known good configuration: what is in it, and that it is written only when it differs."""

from __future__ import annotations

import base64
import gzip

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2

from inflight_operator.api import names
from inflight_operator.installation import lastgood as keeping
from inflight_operator.installation.lastgood import NAME, LastGood, cluster_ips
from inflight_operator.observe.store import Store
from inflight_operator.xds import build, lastgood
from inflight_operator.xds.lastgood import Good
from inflight_operator.xds.listener import Ports, listeners
from inflight_operator.xds.model import Endpoint
from memory_kube import MemoryKube
from route_specs import backend, route_spec

REVISION = "digits-stable-aaaa1111"


def good(*ports: int, weights: tuple[int, ...] = (100,)) -> Good:
    """What a router has accepted of one ModelDeployment whose pods listen on these ports."""
    pieces = build.pieces(route_spec(backend(ports=ports or (9,)), weights=weights))
    return Good({("demo", "digits"): pieces.routes}, pieces.clusters, listeners(Ports()))


def service(address: str = "10.96.0.7") -> Store:
    store = Store()
    labels = {names.MODEL_DEPLOYMENT: "digits", names.REVISION: "aaaa1111"}
    metadata = {"namespace": "demo", "name": REVISION, "labels": labels, "resourceVersion": "1"}
    store.put("Service", {"metadata": metadata, "spec": {"clusterIP": address}})
    alias = {
        "namespace": "demo",
        "name": "digits",
        "labels": {names.MODEL_DEPLOYMENT: "digits"},
        "resourceVersion": "1",
    }
    store.put("Service", {"metadata": alias, "spec": {"type": "ExternalName"}})
    return store


def clusters(content: bytes) -> dict[str, cluster_pb2.Cluster]:
    response = discovery_pb2.DiscoveryResponse.FromString(content)
    found = (cluster_pb2.Cluster.FromString(resource.value) for resource in response.resources)
    return {cluster.name: cluster for cluster in found}


def addresses(cluster: cluster_pb2.Cluster) -> list[tuple[str, int]]:
    hosts = [host.endpoint.address.socket_address for e in cluster.load_assignment.endpoints for host in e.lb_endpoints]
    return [(host.address, host.port_value) for host in hosts]


def test_a_revisions_service_stands_for_its_pods_on_both_ports() -> None:
    found = lastgood.services(cluster_ips(service()), 80, 8081, good().clusters)
    assert found == {
        f"demo/{REVISION}": Endpoint("10.96.0.7", 80),
        f"demo/{REVISION}/grpc": Endpoint("10.96.0.7", 8081),
    }
    made = clusters(lastgood.files(good(), found)["cds.pb"])
    assert addresses(made[f"demo/{REVISION}"]) == [("10.96.0.7", 80)]
    assert addresses(made[f"demo/{REVISION}/grpc"]) == [("10.96.0.7", 8081)]
    assert {cluster.type for cluster in made.values()} == {cluster_pb2.Cluster.STATIC}
    assert not any(cluster.HasField("lrs_server") for cluster in made.values())


def test_a_cluster_without_a_service_is_there_and_has_no_endpoint() -> None:
    made = clusters(lastgood.files(good(), {})["cds.pb"])
    assert addresses(made[f"demo/{REVISION}"]) == []


def test_pods_that_come_and_go_change_nothing() -> None:
    assert good(1, 2).version({}) == good(3).version({})


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(good(weights=(0,)).version({}), id="weights"),
        pytest.param(good().version({f"demo/{REVISION}": Endpoint("10.96.0.8", 80)}), id="a Service's address"),
        pytest.param(Good({}, {}, listeners(Ports())).version({}), id="nothing"),
        pytest.param(Good(good().routes, good().clusters, listeners(Ports(plain=8443))).version({}), id="a listener"),
    ],
)
def test_everything_else_does(other: str) -> None:
    assert good().version({}) != other


class House:
    def __init__(self) -> None:
        self.kube = MemoryKube()
        self.good: Good | None = good()

    def leader(self, store: Store | None = None) -> LastGood:
        return LastGood(self.kube, "system", store or service(), lambda: self.good)  # type: ignore[arg-type]


async def test_it_is_written_once_and_again_only_when_it_differs() -> None:
    house = House()
    leader = house.leader()
    assert await leader.refresh()
    content = house.kube.objects["ConfigMap", "system", NAME]
    assert [owner["uid"] for owner in content["metadata"]["ownerReferences"]] == ["service-uid"]
    raw = gzip.decompress(base64.b64decode(content["binaryData"]["cds.pb.gz"]))
    assert addresses(clusters(raw)[f"demo/{REVISION}"]) == [("10.96.0.7", 80)]
    assert not await leader.refresh()
    assert not await house.leader().refresh(), "the next leader finds it as it should be"
    assert await house.leader(service("10.96.0.8")).refresh()


async def test_nothing_is_written_before_a_router_has_accepted_something() -> None:
    """Least of all an empty world over one that is known."""
    house = House()
    house.good = None
    assert not await house.leader().refresh()
    assert house.kube.writes == []


async def test_what_is_too_large_leaves_the_last_one_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    await house.leader().refresh()
    before = house.kube.objects["ConfigMap", "system", NAME]
    monkeypatch.setattr(keeping, "MAX_BYTES", 10)
    assert not await house.leader(service("10.96.0.8")).refresh()
    assert house.kube.objects["ConfigMap", "system", NAME] == before
