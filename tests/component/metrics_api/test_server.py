"""The metrics API over real TLS: who is answered, and with what."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from inflight_cluster import pki
from inflight_operator.errors import TransientError
from inflight_operator.metrics_api import Config, FrontProxy, MetricsApi, serve

METRIC = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/demo/deployments.apps/digits/inflight_requests"
HPA = {"X-Remote-User": "system:serviceaccount:kube-system:horizontal-pod-autoscaler"}


@dataclass
class Neighbours:
    """What the rest of the operator and the cluster say, as a test wants it."""

    demand: dict[tuple[str, str], float] = field(default_factory=lambda: {("demo", "digits"): 2.7})
    readers: set[str] = field(default_factory=lambda: {HPA["X-Remote-User"]})
    proxy: FrontProxy | None = None
    review_error: TransientError | None = None

    async def trust(self) -> FrontProxy:
        if self.proxy is None:
            raise TransientError("API server: connection refused")
        return self.proxy

    async def review(self, question: Mapping[str, Any]) -> bool:
        if self.review_error:
            raise self.review_error
        return question["user"] in self.readers


@dataclass(frozen=True)
class Stage:
    """A running metrics API and the certificates around it."""

    api: MetricsApi
    neighbours: Neighbours
    directory: Path
    serving: pki.Pair
    front_proxy: pki.Pair

    def client(self, pair: pki.Pair | None) -> ssl.SSLContext:
        """A client that trusts whatever is in the TLS directory now and presents `pair`."""
        context = ssl.create_default_context(cafile=str(self.directory / "tls" / "ca.crt"))
        if pair:
            context.load_cert_chain(pair.certificate, pair.key)
        return context

    async def get(
        self, path: str, headers: Mapping[str, str] | None = None, pair: pki.Pair | None = None
    ) -> tuple[int, Any]:
        """Status and JSON (or text) of one GET on a connection of its own."""
        connector = aiohttp.TCPConnector(ssl=self.client(pair), force_close=True)
        async with (
            aiohttp.ClientSession(f"https://127.0.0.1:{self.api.port}", connector=connector) as http,
            http.get(path, headers=headers) as answer,
        ):
            return answer.status, await (answer.json() if answer.content_type == "application/json" else answer.text())

    async def ask(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """As the front proxy."""
        return await self.get(path, HPA if headers is None else headers, self.front_proxy)


def put_serving_certificate(directory: Path) -> pki.Pair:
    """A new authority and a certificate of it where the chart's Secret would be mounted."""
    ca = pki.authority(directory / "tls", "ca")
    return pki.issue(directory / "tls", "tls", ca, user="inflight-operator", hosts=["127.0.0.1"])


def front_proxy(directory: Path, name: str = "front-proxy") -> tuple[pki.Pair, FrontProxy]:
    """A front proxy's certificate, and what the cluster publishes of it."""
    ca = pki.authority(directory / name, "ca")
    pair = pki.issue(directory / name, "client", ca, user=name)
    return pair, FrontProxy(ca.certificate.read_text(), ("front-proxy", "next-proxy"))


@asynccontextmanager
async def staged(directory: Path) -> AsyncIterator[Stage]:
    serving = put_serving_certificate(directory)
    pair, proxy = front_proxy(directory)
    neighbours = Neighbours(proxy=proxy)
    config = Config(directory / "tls", port=0, host="127.0.0.1", refresh_seconds=0.05)
    api = await serve(config, lambda ns, name: neighbours.demand.get((ns, name)), neighbours.trust, neighbours.review)
    try:
        yield Stage(api, neighbours, directory, serving, pair)
    finally:
        await api.stop()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as found:
        yield found


async def test_the_hpa_reads_the_demand(stage: Stage) -> None:
    status, answer = await stage.ask(METRIC)
    assert status == 200
    assert answer["kind"] == "MetricValueList"
    assert [item["value"] for item in answer["items"]] == ["2700m"]
    assert answer["items"][0]["windowSeconds"] == 6


async def test_no_data_is_a_404_that_says_the_hpa_holds(stage: Stage) -> None:
    del stage.neighbours.demand[("demo", "digits")]
    status, answer = await stage.ask(METRIC)
    assert (status, answer["kind"], answer["reason"]) == (404, "Status", "NotFound")
    assert answer["message"] == "no load data for Deployment demo/digits; the HPA holds its replicas"


async def test_zero_is_data(stage: Stage) -> None:
    stage.neighbours.demand[("demo", "digits")] = 0.0
    status, answer = await stage.ask(METRIC)
    assert (status, answer["items"][0]["value"]) == (200, "0m")


async def test_headers_without_the_front_proxys_certificate_are_worth_nothing(stage: Stage) -> None:
    status, answer = await stage.get(METRIC, HPA)
    assert (status, answer["reason"]) == (401, "Unauthorized")


async def test_another_name_signed_by_the_same_authority_is_not_the_front_proxy(stage: Stage) -> None:
    ca = pki.Pair(stage.directory / "front-proxy" / "ca.crt", stage.directory / "front-proxy" / "ca.key")
    somebody = pki.issue(stage.directory / "front-proxy", "somebody", ca, user="somebody")
    status, _ = await stage.get(METRIC, HPA, somebody)
    assert status == 401


async def test_a_certificate_of_another_authority_ends_the_handshake(stage: Stage) -> None:
    stranger, _ = front_proxy(stage.directory / "elsewhere")
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        await stage.get(METRIC, HPA, stranger)


async def test_the_front_proxy_has_to_name_a_user(stage: Stage) -> None:
    status, answer = await stage.ask(METRIC, {})
    assert status == 401
    assert "X-Remote-User" in answer["message"]


async def test_who_may_not_read_is_told_so(stage: Stage) -> None:
    status, answer = await stage.ask(METRIC, {"X-Remote-User": "eve"})
    assert (status, answer["reason"]) == (403, "Forbidden")
    assert "eve may not get deployments.apps/inflight_requests of digits in namespace demo" in answer["message"]


async def test_when_nobody_can_review_nobody_is_allowed(stage: Stage) -> None:
    stage.neighbours.review_error = TransientError("API server: connection refused")
    status, answer = await stage.ask(METRIC)
    assert (status, answer["reason"]) == (503, "ServiceUnavailable")


@pytest.mark.parametrize(
    ("path", "code", "told"),
    [
        pytest.param(METRIC.replace("digits", "*"), 400, "one named Deployment", id="every-deployment"),
        pytest.param(f"{METRIC}?metricLabelSelector=a%3Db", 400, "without selectors", id="selector"),
        pytest.param(METRIC.replace("inflight_requests", "cpu"), 404, "Not Found", id="other-metric"),
        pytest.param(METRIC.replace("deployments.apps", "pods"), 404, "Not Found", id="other-resource"),
        pytest.param("/openapi/v2", 404, "Not Found", id="openapi-v2"),
        pytest.param("/openapi/v3", 404, "Not Found", id="openapi-v3"),
    ],
)
async def test_what_is_not_served_is_a_status(stage: Stage, path: str, code: int, told: str) -> None:
    status, answer = await stage.ask(path)
    assert (status, answer["kind"], answer["code"]) == (code, "Status", code)
    assert told in answer["message"]


async def test_discovery_names_the_one_metric(stage: Stage) -> None:
    _, groups = await stage.ask("/apis")
    _, group = await stage.ask("/apis/custom.metrics.k8s.io")
    _, resources = await stage.ask("/apis/custom.metrics.k8s.io/v1beta2")
    assert [item["name"] for item in groups["groups"]] == ["custom.metrics.k8s.io"]
    assert group["preferredVersion"]["version"] == "v1beta2"
    assert [item["name"] for item in resources["resources"]] == ["deployments.apps/inflight_requests"]


async def test_health_is_for_everybody(stage: Stage) -> None:
    assert await stage.get("/healthz") == (200, "ok")


async def test_until_the_cluster_says_whom_to_trust_nobody_is_answered(tmp_path: Path) -> None:
    put_serving_certificate(tmp_path)
    pair, proxy = front_proxy(tmp_path)
    neighbours = Neighbours()
    config = Config(tmp_path / "tls", port=0, host="127.0.0.1", refresh_seconds=0.05)
    api = await serve(config, lambda *_: 1.0, neighbours.trust, neighbours.review)
    stage = Stage(api, neighbours, tmp_path, pair, pair)
    try:
        assert (await stage.get(METRIC, HPA))[0] == 401
        neighbours.proxy = proxy
        assert await until_answered(stage, pair) == 200
    finally:
        await api.stop()


async def test_a_new_front_proxy_authority_is_taken_over_and_the_old_one_dropped(stage: Stage) -> None:
    old = stage.front_proxy
    new, stage.neighbours.proxy = front_proxy(stage.directory, "next-proxy")
    assert await until_answered(stage, new) == 200
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        await stage.get(METRIC, HPA, old)


async def test_a_renewed_serving_certificate_is_used_without_a_restart(stage: Stage) -> None:
    put_serving_certificate(stage.directory)  # clients trust the new authority from here on
    assert await until_answered(stage, stage.front_proxy) == 200


async def test_broken_certificate_files_leave_the_working_ones_in_use(stage: Stage) -> None:
    (stage.directory / "tls" / "tls.crt").write_text("half a fi")
    await asyncio.sleep(0.2)
    assert (await stage.ask(METRIC))[0] == 200


def test_on_the_operators_own_event_loop_it_is_the_same(tmp_path: Path) -> None:
    """uvloop has a TLS implementation of its own: certificates and their renewal go through it too."""

    async def scene() -> None:
        async with staged(tmp_path) as stage:
            assert (await stage.ask(METRIC))[0] == 200
            assert (await stage.get(METRIC, HPA))[0] == 401
            await test_a_new_front_proxy_authority_is_taken_over_and_the_old_one_dropped(stage)
            put_serving_certificate(tmp_path)
            new = pki.Pair(tmp_path / "next-proxy" / "client.crt", tmp_path / "next-proxy" / "client.key")
            assert await until_answered(stage, new) == 200

    uvloop.run(scene())


async def until_answered(stage: Stage, pair: pki.Pair, seconds: float = 5.0) -> int:
    """Ask as `pair` until the handshake and the answer succeed; the last status."""
    status = 0
    async with asyncio.timeout(seconds):
        while status != 200:
            try:
                status, _ = await stage.get(METRIC, HPA, pair)
            except (aiohttp.ClientError, ssl.SSLError):
                await asyncio.sleep(0.05)
    return status
