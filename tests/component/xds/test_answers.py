"""What a client gets when the router must answer itself, and what the router tries before it does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from io import BytesIO

import aiohttp
import grpc
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_pb2

from inflight_operator.xds import build, clusters, retries, wire
from inflight_operator.xds.build import Pieces
from inflight_operator.xds.model import RouteSpec
from ports import free_port
from route_specs import backend, route_spec
from router_rig import Answer, Rig

KEY = ("demo", "digits")


def is_problem(answer: Answer, status: int, code: str, retry_after: str | None) -> bool:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body["type"] == "about:blank"
    assert {"title", "detail", "error"} <= answer.body.keys()
    seen = (answer.status, answer.body["status"], answer.body["code"], answer.headers.get("retry-after"))
    return seen == (status, status, code, retry_after)


async def test_no_endpoint_says_when_to_come_back(rig: Rig) -> None:
    await rig.start(route_spec(backend(ports=[])), route_spec(name="empty"))
    await rig.router()
    for host in ("digits.demo", "empty.demo"):
        answer = await rig.ask(host=host)
        assert is_problem(answer, 503, "no_ready_endpoint", "1")
        assert answer.headers["x-inflight-retry-after-ms"] == "1000"


async def test_a_dead_endpoint_says_when_to_come_back(rig: Rig) -> None:
    await rig.start(route_spec(backend(ports=[free_port()])))
    await rig.router()
    assert is_problem(await rig.ask(), 503, "connection_failed", "1")


async def test_the_deadline_of_the_model_is_kept(rig: Rig) -> None:
    pod = await rig.pod(delay=3)
    await rig.start(route_spec(backend(ports=[pod.port], timeout=300)))
    await rig.router()
    began = time.monotonic()
    assert is_problem(await rig.ask(), 504, "deadline", None)
    assert 0.29 <= time.monotonic() - began < 1.0


async def test_a_lost_connection_is_told_and_not_tried_again(rig: Rig) -> None:
    """The pod may have begun to work on it."""
    pod, other = await rig.pod(), await rig.pod("other")
    pod.lose_connection = other.lose_connection = True
    await rig.start(route_spec(backend(ports=[pod.port, other.port])))
    await rig.router()
    assert is_problem(await rig.ask(method="POST", data=b"x"), 502, "connection_lost", None)
    assert pod.requests + other.requests == 1


def narrow(spec: RouteSpec) -> Pieces:
    """A breaker that opens at two requests."""
    pieces = build.pieces(spec)
    narrowed = {}
    for backend_ in spec.backends:
        name = clusters.cluster_name(spec.namespace, backend_.name)
        cluster = cluster_pb2.Cluster()
        cluster.ParseFromString(wire_body(pieces.clusters[name]))
        limits = cluster.circuit_breakers.thresholds[0]
        limits.max_requests.value = 2
        narrowed[name] = wire.resource(wire.CLUSTER, name, cluster)
    return replace(pieces, clusters={**pieces.clusters, **narrowed})


def wire_body(resource: wire.Resource) -> bytes:
    from envoy.service.discovery.v3 import discovery_pb2

    value: bytes = discovery_pb2.DeltaDiscoveryResponse.FromString(resource.wire).resources[0].resource.value
    return value


async def test_the_router_refuses_more_than_the_breaker_allows(rig: Rig) -> None:
    pod = await rig.pod(delay=0.5)
    await rig.start(route_spec(backend(ports=[pod.port])), pieces=narrow)
    await rig.router()
    answers = await asyncio.gather(*(rig.ask() for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 200, 503, 503]
    assert all(is_problem(a, 503, "overloaded", "1") for a in answers if a.status == 503)


async def test_a_dead_endpoint_among_live_ones_costs_no_request(rig: Rig) -> None:
    pods = [await rig.pod("a"), await rig.pod("b")]
    dead = free_port()
    await rig.start(route_spec(backend(ports=[dead, *(pod.port for pod in pods)])))
    router = await rig.router()
    answers = [await rig.ask() for _ in range(100)]
    answers += [await rig.ask(method="POST", data=BytesIO(bytes(200_000))) for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    assert {answer.body["bytes"] for answer in answers} == {0, 200_000}
    retries = await router.stats(r"digits-stable-aaaa1111\.upstream_rq_retry$")
    assert sum(retries.values()) > 0  # it was tried, and another one after it


async def test_a_dead_endpoint_draws_no_requests_from_busy_ones(rig: Rig) -> None:
    """It is always the least busy one: without its ejection every request would try it, and try it again."""
    pods = [await rig.pod(name, delay=0.05) for name in "ab"]
    await rig.start(route_spec(backend(ports=[free_port(), *(pod.port for pod in pods)])))
    router = await rig.router()
    statuses: Counter[int] = Counter()

    async def client() -> None:
        for _ in range(25):
            statuses[(await rig.ask()).status] += 1

    await asyncio.gather(*(client() for _ in range(8)))
    assert statuses == {200: 200}
    stats = await router.stats(r"digits-stable-aaaa1111\.(upstream_cx_connect_fail|.*ejections_enforced_total)$")
    failed, ejected = (stats[name] for name in sorted(stats, key=lambda name: "ejections" in name))
    assert 1 <= ejected <= 3  # once more after each second that this takes on a busy machine
    assert failed < 50  # not one or more for each request


async def test_a_body_too_large_for_another_try_says_when_to_come_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy says 507 for it. With long waits between tries, so that more of it always comes meanwhile."""
    monkeypatch.setattr(retries, "WAIT", wire.milliseconds(1000))
    monkeypatch.setattr(retries, "MAX_WAIT", wire.milliseconds(1000))
    await rig.start(route_spec(backend(ports=[free_port()])))
    router = await rig.router()
    answers = [await rig.ask(method="POST", data=BytesIO(bytes(8_000_000))) for _ in range(5)]
    assert all(is_problem(answer, 503, "connection_failed", "1") for answer in answers)
    assert sum((await router.stats("retry_or_shadow_abandoned$")).values()) > 0


async def test_a_revision_whose_endpoints_are_all_dead_answers_again_when_one_is_back(rig: Rig) -> None:
    """Ejected are at most those that others can replace: with none left, all are tried."""
    port = free_port()
    await rig.start(route_spec(backend(ports=[port, free_port()])))
    await rig.router()
    assert {(await rig.ask()).status for _ in range(10)} == {503}
    await rig.pod(port=port)
    began = time.monotonic()
    while (await rig.ask()).status != 200:
        assert time.monotonic() - began < 1.0


def without_retries(spec: RouteSpec) -> Pieces:
    pieces = build.pieces(spec)
    configuration = route_pb2.RouteConfiguration.FromString(pieces.routes.host)
    configuration.virtual_hosts[0].ClearField("retry_policy")
    return replace(pieces, routes=replace(pieces.routes, host=wire.serialise(configuration)))


async def test_without_the_retry_policy_it_would(rig: Rig) -> None:
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[free_port(), pod.port])), pieces=without_retries)
    await rig.router()
    statuses = {(await rig.ask()).status for _ in range(60)}
    assert statuses == {200, 503}


RAW = [
    pytest.param(b"GET / HTTP/1.1\r\nHost: digits.demo\r\nx_user: 1\r\n\r\n", 400, id="underscore in a header"),
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no host"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: digits.demo\r\nHost: digits.demo\r\n\r\n", 404, id="two hosts"),
    pytest.param(b"NONSENSE\r\n\r\n", 400, id="not HTTP"),
    pytest.param(
        b"POST / HTTP/1.1\r\nHost: digits.demo\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        id="length and chunks",
    ),
    pytest.param(
        b"POST / HTTP/1.1\r\nHost: digits.demo\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        400,
        id="two lengths",
    ),
    pytest.param(
        b"GET / HTTP/1.1\r\nHost: digits.demo\r\nx: " + b"a" * 70_000 + b"\r\n\r\n", 431, id="64 KiB of headers"
    ),
    pytest.param(
        b"GET / HTTP/1.1\r\nHost: digits.demo\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 403, id="upgrade"
    ),
    pytest.param(b"CONNECT digits.demo:80 HTTP/1.1\r\nHost: digits.demo:80\r\n\r\n", 404, id="tunnel"),
    pytest.param(b"GET /\x00 HTTP/1.1\r\nHost: digits.demo\r\n\r\n", 400, id="NUL in the path"),
]


async def test_what_is_not_plain_http_is_refused_at_the_edge(rig: Rig, subtests: pytest.Subtests) -> None:
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    await rig.router()
    for case in RAW:
        with subtests.test(case.id):
            message, status = case.values
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(message)
            answer = await asyncio.wait_for(reader.read(65536), 5)
            writer.close()
            assert answer.split(b" ", 2)[1] == str(status).encode()
            assert answer.count(b"HTTP/1.1") == 1
    assert pod.requests == 0
    assert (await rig.ask()).status == 200


async def test_headers_that_dribble_in_are_cut_off(rig: Rig) -> None:
    await rig.start(route_spec(backend()))
    await rig.router()
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    began = time.monotonic()

    async def dribble() -> None:
        with suppress(ConnectionError):
            for byte in b"GET / HTTP/1.1\r\nHost: digits.demo\r\nx: " + b"y" * 60:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.25)

    task = asyncio.create_task(dribble())
    answer = await asyncio.wait_for(reader.read(65536), 14)
    task.cancel()
    writer.close()
    assert b" 408 " in answer
    assert b'"code": "request_timeout"' in answer
    assert 9 < time.monotonic() - began < 13


async def test_http2_without_tls_is_spoken_for_grpc(rig: Rig) -> None:
    await rig.start(route_spec(backend()))
    await rig.router()
    options = [("grpc.default_authority", "nobody.demo")]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}", options=options) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call(b"", timeout=5)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED  # gRPC's word for 404
    assert "not_found" in (error.value.details() or "")


async def test_only_readiness_and_metrics_are_shown_outside(rig: Rig) -> None:
    await rig.start(route_spec(backend()))
    router = await rig.router()
    seen = {}
    for method, path in (
        ("GET", "/ready"),
        ("GET", "/stats/prometheus"),
        ("POST", "/ready"),
        ("GET", "/config_dump"),
        ("POST", "/quitquitquit"),
        ("GET", "/"),
        ("GET", "/stats"),
        ("GET", "/ready/../config_dump"),
    ):
        async with aiohttp.request(method, f"{router.status}{path}") as answer:
            seen[f"{method} {path}"] = answer.status
    assert {what for what, status in seen.items() if status == 200} == {"GET /ready", "GET /stats/prometheus"}
    assert set(seen.values()) == {200, 404}


async def test_errors_of_the_router_are_logged_as_json_and_answers_are_not(rig: Rig) -> None:
    pod = await rig.pod()
    await rig.start(
        route_spec(backend(ports=[pod.port])), route_spec(backend(ports=[free_port()], model="dead"), name="dead")
    )
    router = await rig.router()
    await rig.ask("/secret")
    await rig.ask("/v2", "dead.demo")
    await rig.ask("/nowhere", "nobody.demo")
    await rig.until(lambda: "dead.demo" in router.log.read_text())
    text = router.log.read_text()
    assert '"status":503' in text
    assert "secret" not in text
    assert "nowhere" not in text
