"""Each alert, by breaking the thing: a real Prometheus scrapes real processes, and what is mended is quiet again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from model_process import started
from monitoring import SCRAPE_SECONDS, SYSTEM, World, model_pod, until

EXAMPLES = Path(__file__).parents[3] / "model-server" / "examples"
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}


def quiet_again(world: World) -> None:
    until(lambda: not world.prometheus.firing(), "no alert fires any more")


def test_when_all_is_well_nothing_fires(well: World) -> None:
    end = time.monotonic() + 5 * SCRAPE_SECONDS
    while time.monotonic() < end:
        assert well.prometheus.firing() == []
        time.sleep(SCRAPE_SECONDS)


def test_an_operator_that_is_gone(well: World) -> None:
    prometheus = well.prometheus
    well.kill("operator-0")
    prometheus.forget("inflight-operator", "operator-0")  # Kubernetes forgets the pod
    until(lambda: prometheus.fires("InflightOperatorNotLeading", namespace=SYSTEM, severity="critical"), "no operator")
    alone = until(lambda: prometheus.fires("InflightRouterWithoutControlPlane", pod="router-0"), "the router is alone")
    assert alone["annotations"]["summary"] == f"Router {SYSTEM}/router-0 has no connection to the operator."
    well.start("operator-0")
    well.watch_operator()
    quiet_again(well)


def test_a_router_that_is_gone(well: World) -> None:
    """Nobody reports the load any more."""
    well.kill("router-0")
    held = until(lambda: well.prometheus.fires("InflightScalingHeld", namespace="default", name="digits"), "it holds")
    assert held["annotations"]["summary"] == "The replicas of default/digits do not follow the load."
    well.start("router-0")
    quiet_again(well)


def test_a_modeldeployment_that_gets_no_pod(well: World, cluster) -> None:
    cluster.deploy("broken")
    alert = until(lambda: well.prometheus.fires("InflightModelDeploymentNotReady", name="broken"), "broken")
    assert "`kubectl describe modeldeployment broken -n default`" in alert["annotations"]["description"]
    assert well.prometheus.fires("InflightModelDeploymentNotReady", name="digits") is None
    cluster.delete("broken")
    quiet_again(well)


@contextmanager
def asking(url: str, clients: int) -> Iterator[None]:
    """Clients that ask one after the other, without a pause, while the block runs."""
    over = False

    def ask() -> None:
        with httpx.Client() as http:
            while not over:
                http.post(url, json=BODY)

    with ThreadPoolExecutor(clients) as pool:
        asked = [pool.submit(ask) for _ in range(clients)]
        try:
            yield
        finally:
            over = True
    for client in asked:
        client.result()


def test_more_requests_than_a_model_server_holds(well: World) -> None:
    prometheus = well.prometheus
    settings = {"CONCURRENCY": "1", "MAX_QUEUE": "0", "MODEL_FORMAT": "python", "MODEL_ENTRYPOINT": "sleep:Sleep"}
    with started("--model", f"digits={EXAMPLES / 'sleep.py'}", **settings) as server:
        port = int(server.metrics_url.rpartition(":")[2].partition("/")[0])
        prometheus.watch("inflight-model-server", "digits-1", port, model_pod("digits", "stable", "aaaa", "demo"))
        url = f"{server.url}/v2/models/digits/infer"
        with asking(url, clients=1):
            until(lambda: prometheus.query("rate(inflight_server_request_seconds_count[5s]) > 1"), "requests are seen")
            time.sleep(5 * SCRAPE_SECONDS)
            assert prometheus.firing() == []
        with asking(url, clients=4):
            alert = until(lambda: prometheus.fires("InflightRequestsShed", modeldeployment="digits"), "it refuses")
        assert alert["labels"]["namespace"] == "demo"
        assert alert["annotations"]["summary"].startswith("demo/digits refuses ")
        assert alert["annotations"]["summary"].endswith("% of its requests.")
        quiet_again(well)
    prometheus.forget("inflight-model-server", "digits-1")


@pytest.mark.parametrize(("days", "fires"), [(5, True), (30, False)])
def test_a_certificate_that_was_not_renewed(well: World, days: int, fires: bool) -> None:
    name = f"router-{days}"
    well.router(name, well.certificates(f"days-{days}", days))
    ends = f'envoy_cluster_ssl_certificate_expiration_unix_time_seconds{{pod="{name}",envoy_tls_certificate="router"}}'
    told = f"floor(({ends} - time()) / 86400) == {days - 1}"
    until(lambda: well.prometheus.query(told), "the router tells it")
    if fires:
        alert = until(lambda: well.prometheus.fires("InflightCertificateExpiring", namespace=SYSTEM), "it expires")
        assert alert["annotations"]["summary"].startswith(
            f"Certificate router of the routers in {SYSTEM} expires in 4d"
        )
    else:
        time.sleep(5 * SCRAPE_SECONDS)
        assert well.prometheus.fires("InflightCertificateExpiring") is None
    well.kill(name)
    well.prometheus.forget("inflight-router", name)
    quiet_again(well)


def test_a_router_that_never_found_an_operator(well: World) -> None:
    stranger = well.certificates("stranger", authority="another")
    well.router("router-x", stranger)
    until(lambda: well.prometheus.fires("InflightRouterWithoutControlPlane", pod="router-x"), "it is alone")
    assert well.prometheus.fires("InflightRouterWithoutControlPlane", pod="router-0") is None
    well.kill("router-x")
    well.prometheus.forget("inflight-router", "router-x")
    quiet_again(well)
