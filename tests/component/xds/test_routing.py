"""Which request reaches which variant, what nobody reaches, and what a client can't do."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest

from route_specs import backend, route_spec
from router_rig import Rig

OK, NOT_FOUND, BAD, UNAVAILABLE = 200, 404, 400, 503

ROUTES = [
    pytest.param("digits.demo", "/v2/health/ready", OK, "/v2/health/ready", id="short host"),
    pytest.param("digits.demo.svc", "/v2?a=1", OK, "/v2?a=1", id="host of a Service, with a query"),
    pytest.param("digits.demo.svc.cluster.local", "/", OK, "/", id="full host"),
    pytest.param("digits.demo:80", "/", OK, "/", id="the port of a host doesn't matter"),
    pytest.param("digits.demo.svc.cluster.local.", "/", OK, "/", id="a final dot doesn't matter"),
    pytest.param("DIGITS.demo", "/", OK, "/", id="case of a host doesn't matter"),
    pytest.param("10.0.0.1", "/demo/digits/v2?a=1", OK, "/v2?a=1", id="by path, prefix stripped"),
    pytest.param("10.0.0.1", "//demo//digits/v2", OK, "/v2", id="doubled slashes are one"),
    pytest.param("10.0.0.1", "/demo/x/../digits/v2", OK, "/v2", id="dots are resolved before routing"),
    pytest.param("10.0.0.1", "/demo/digits/variants/stable/v2", OK, "/v2", id="one variant by path"),
    pytest.param("digits.demo", "/metrics", NOT_FOUND, None, id="metrics are hidden by host"),
    pytest.param("digits.demo", "/metrics?x", NOT_FOUND, None, id="also with a query"),
    pytest.param("digits.demo", "/%6detrics", NOT_FOUND, None, id="also encoded"),
    pytest.param("digits.demo", "/v2/models/metrics", OK, "/v2/models/metrics", id="a model called metrics is not"),
    pytest.param("x", "/demo/digits/metrics", NOT_FOUND, None, id="metrics are hidden by path"),
    pytest.param("x", "/demo/digits/variants/stable/metrics", NOT_FOUND, None, id="and by variant"),
    pytest.param("x", "/demo/digits/variants/other/v2", NOT_FOUND, None, id="unknown variant"),
    pytest.param("x", "/demo/digits", NOT_FOUND, None, id="a path without its slash"),
    pytest.param("x", "/demo/digitsx/v2", NOT_FOUND, None, id="a longer name"),
    pytest.param("x", "/other/digits/v2", NOT_FOUND, None, id="unknown namespace"),
    pytest.param("digits.other", "/v2", NOT_FOUND, None, id="unknown host"),
    pytest.param("digits", "/v2", NOT_FOUND, None, id="a bare name has no namespace"),
    pytest.param("x", "/ready", NOT_FOUND, None, id="administration is not served"),
    pytest.param("empty.demo", "/v2", UNAVAILABLE, None, id="no ready endpoint by host"),
    pytest.param("x", "/demo/empty/v2", UNAVAILABLE, None, id="no ready endpoint by path"),
    pytest.param("digits.ml.example", "/v2", OK, "/v2", id="a host of its own"),
    pytest.param("digits.ml.example:8080", "/v2", OK, "/v2", id="with its port"),
    pytest.param("digits.ml.example", "/metrics", NOT_FOUND, None, id="where metrics are hidden too"),
    pytest.param("other.ml.example", "/v2", NOT_FOUND, None, id="a host that is nobody's"),
    pytest.param("x", "/demo/digits%2Fv2", BAD, None, id="escaped slash"),
    pytest.param("x", "/demo%5Cdigits/v2", BAD, None, id="escaped backslash"),
]


async def test_requests_reach_what_their_host_or_path_names(rig: Rig, subtests: pytest.Subtests) -> None:
    pod = await rig.pod()
    empty = route_spec(name="empty")
    await rig.start(replace(route_spec(backend(ports=[pod.port])), hosts=("digits.ml.example",)), empty)
    await rig.router()
    for case in ROUTES:
        with subtests.test(case.id):
            host, path, status, received = case.values
            answer = await rig.ask(path, host)
            assert (answer.status, answer.body.get("path")) == (status, received)


async def test_a_host_goes_over_to_another_one_without_a_request_that_nobody_answers(rig: Rig) -> None:
    """Both changes one after the other, as two reconciles tell them."""
    hosts = ("digits.ml.example",)
    pods = [await rig.pod(name) for name in "ab"]
    specs = [route_spec(backend(ports=[pod.port], model=pod.name), name=pod.name) for pod in pods]
    await rig.start(replace(specs[0], hosts=hosts), specs[1])
    await rig.router()
    async with rig.traffic(host=hosts[0]) as seen:
        await rig.until(lambda: seen["200 a"] > 10)
        rig.set(specs[0])
        rig.set(replace(specs[1], hosts=hosts))
        await rig.until(lambda: seen["200 b"] > 10)
    assert set(seen) == {"200 a", "200 b"}


async def test_a_host_waits_for_the_routes_that_still_have_it(rig: Rig) -> None:
    """Two with the same host would be refused by Envoy, and others' changes with them."""
    hosts = ("digits.ml.example",)
    pods = [await rig.pod(name) for name in "abc"]
    a, b, c = (route_spec(backend(ports=[pod.port], model=pod.name), name=pod.name) for pod in pods)
    await rig.start(replace(a, hosts=hosts), b, c)
    await rig.router()
    assert (await rig.ask(host=hosts[0])).body["pod"] == "a"
    rig.set(replace(b, hosts=hosts))  # asked for too early: a has it still
    await rig.programmed(rig.set(replace(c, timeout_milliseconds=900)))
    assert (await rig.ask(host=hosts[0])).body["pod"] == "a"
    assert rig.plane.programmed(("demo", "b")).rejected is None
    rig.set(a)
    assert (await rig.programmed(("demo", "b"))).acknowledged
    assert (await rig.ask(host=hosts[0])).body["pod"] == "b"


async def test_unknown_and_foreign_are_told_apart_by_nothing(rig: Rig) -> None:
    await rig.start(route_spec(backend()))
    await rig.router()
    answers = [
        await rig.ask(path, host)
        for path, host in (
            ("/v2", "digits.other"),
            ("/v2", "nobody.demo"),
            ("/demo/nobody/v2", "x"),
            ("/other/digits/v2", "x"),
            ("/demo/digits/variants/none/v2", "x"),
            ("/metrics", "digits.demo"),
        )
    ]
    seen = {(a.status, str(a.body), str(sorted(a.headers.items() - {("date", a.headers["date"])}))) for a in answers}
    assert len(seen) == 1
    assert answers[0].body == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "There is nothing here.",
        "error": "There is nothing here.",
        "code": "not_found",
    }


async def test_the_router_says_who_answered_whatever_the_server_says(rig: Rig) -> None:
    pod = await rig.pod()
    stable, candidate = backend(ports=[pod.port]), backend("candidate", [pod.port], revision="bbbb2222")
    await rig.start(route_spec(stable, candidate, weights=(100, 0)))
    await rig.router()
    for path, variant, revision in (
        ("/demo/digits/v2", "stable", "aaaa1111"),
        ("/demo/digits/variants/candidate/v2", "candidate", "bbbb2222"),
    ):
        answer = await rig.ask(path, "x")
        assert answer.headers["x-inflight-variant"] == variant
        assert answer.headers["x-inflight-revision"] == revision


async def test_a_client_can_not_steer_the_router(rig: Rig) -> None:
    pod = await rig.pod(delay=0.1)
    await rig.start(route_spec(backend(ports=[pod.port], timeout=3000)))
    await rig.router()
    headers = {
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-retry-on": "5xx",
        "x-envoy-anything": "1",
        "x-request-timeout-ms": "1500",
        "x-request-id": "chosen",
        "x-forwarded-proto": "https",
    }
    answer = await rig.ask(headers=headers)
    assert answer.status == 200
    received = {key.lower(): value for key, value in answer.body["headers"].items()}
    assert {k: v for k, v in received.items() if k.startswith("x-envoy-")} == {"x-envoy-expected-rq-timeout-ms": "3000"}
    assert received["x-request-timeout-ms"] == "1500"
    assert received["x-request-id"] == "chosen"
    assert received["x-forwarded-proto"] == "http"
    assert [key for key in answer.headers if key.startswith("x-envoy")] == []


@pytest.mark.parametrize("weights", [(95, 5), (50, 50), (1, 99)], ids=str)
async def test_the_split_is_as_wished(rig: Rig, weights: tuple[int, int]) -> None:
    pod = await rig.pod()
    stable, candidate = backend(ports=[pod.port]), backend("candidate", [pod.port])
    await rig.start(route_spec(stable, candidate, weights=weights))
    await rig.router()
    seen: Counter[str] = Counter()
    for _ in range(1000):
        answer = await rig.ask()
        assert answer.status == 200
        seen[answer.headers["x-inflight-variant"]] += 1
    share = weights[0] / 100
    assert abs(seen["stable"] / 1000 - share) <= 4 * math.sqrt(share * (1 - share) / 1000)


async def test_the_timeout_is_the_longest_of_the_split_and_of_the_variant_alone(rig: Rig) -> None:
    pod = await rig.pod()
    quick, slow = backend(ports=[pod.port], timeout=1000), backend("slow", [pod.port], timeout=7000)
    await rig.start(route_spec(quick, slow, weights=(50, 50)))
    await rig.router()
    for path, expected in (
        ("/demo/digits/", "7000"),
        ("/demo/digits/variants/stable/", "1000"),
        ("/demo/digits/variants/slow/", "7000"),
    ):
        answer = await rig.ask(path, "x")
        assert answer.body["headers"]["x-envoy-expected-rq-timeout-ms"] == expected


async def test_a_free_replica_is_found_whenever_there_is_one(rig: Rig) -> None:
    """As many clients as replicas: nobody waits behind another (of two replicas by chance, a third would)."""
    pods = [await rig.pod(f"pod-{i}", delay=0.03) for i in range(4)]
    await rig.start(route_spec(backend(ports=[pod.port for pod in pods])))
    await rig.router()
    async with rig.traffic(clients=4) as seen:
        await rig.until(lambda: sum(seen.values()) > 200)
    assert len(seen) == 4
    waited = sum(pod.met for pod in pods)
    assert waited < 0.05 * sum(pod.requests for pod in pods)
