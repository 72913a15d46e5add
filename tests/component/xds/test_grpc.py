"""gRPC through a real Envoy: by host, beside HTTP, to the same pods, by the same weights, as the same demand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest

from inflight_operator.xds.model import Backend
from model_grpc import GrpcServer, answered, grpc_serving, request
from model_serving import ManualExecutor, until
from pods import Pod
from route_specs import backend, route_spec
from router_rig import Rig

INFER = "/inference.GRPCInferenceService/ModelInfer"
NAME = "digits-stable-aaaa1111"


@asynccontextmanager
async def client(rig: Rig, host: str = "digits.demo") -> AsyncIterator[Any]:
    """Asks a prediction of `host` on the router's one port."""
    options = (("grpc.default_authority", host), ("grpc.enable_retries", 0))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}", options=options) as channel:
        yield channel.unary_unary(INFER)


def both(pod: Pod, server: GrpcServer, *named: str, **options: Any) -> Backend:
    """A backend whose one pod takes HTTP and gRPC."""
    return replace(backend(*named, ports=[pod.port], **options), grpc_port=server.running.port)


async def test_grpc_and_http_of_a_host_reach_the_same_pods_on_their_own_ports(rig: Rig) -> None:
    pod = await rig.pod("http")
    async with grpc_serving() as server:
        await rig.start(route_spec(both(pod, server)))
        await rig.router()
        async with client(rig) as infer:
            call = infer(request([1, 2]).SerializeToString())
            assert answered(await call) == [2, 4]
            headers = dict(await call.initial_metadata())
            assert (headers["x-inflight-variant"], headers["x-inflight-revision"]) == ("stable", "aaaa1111")
        answer = await rig.ask("/v2/models/digits/infer", method="POST", json={})
        assert (answer.status, answer.body["pod"]) == (200, "http")
        assert pod.requests == 1


async def test_weights_are_those_of_http(rig: Rig) -> None:
    pod = await rig.pod()
    async with grpc_serving() as stable, grpc_serving() as candidate:
        split = (both(pod, stable), both(pod, candidate, "candidate", revision="bbbb2222"))
        await rig.start(route_spec(*split, weights=(70, 30)))
        await rig.router()
        seen: Counter[str] = Counter()
        async with client(rig) as infer:
            for _ in range(200):
                call = infer(request().SerializeToString())
                await call
                seen[dict(await call.initial_metadata())["x-inflight-variant"]] += 1
    assert seen["candidate"] == pytest.approx(60, abs=30)


async def test_calls_in_progress_are_the_backends_demand(rig: Rig) -> None:
    pod, executor = await rig.pod(delay=30), ManualExecutor()
    async with grpc_serving(executor=executor, timeout_seconds=30) as server:
        await rig.start(route_spec(both(pod, server, timeout=30_000)))
        await rig.router()
        over_http = asyncio.create_task(rig.ask(method="POST"))
        async with client(rig) as infer:
            calls = [infer(request().SerializeToString()) for _ in range(3)]
            tasks = [asyncio.ensure_future(call) for call in calls]
            await rig.until(lambda: rig.plane.load.in_flight("demo", NAME) == pytest.approx(4), 10)
            for call in calls:
                call.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await until(lambda: server.dispatcher.queue_depth == 0)  # the router tells the pod that they have left
        over_http.cancel()
        executor.finish()


async def test_the_routers_patience_is_the_servers_deadline(rig: Rig) -> None:
    pod = await rig.pod()
    async with grpc_serving(executor=ManualExecutor(), timeout_seconds=30) as server:
        await rig.start(route_spec(both(pod, server, timeout=300)))
        await rig.router()
        async with client(rig) as infer:
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await infer(request().SerializeToString())
        assert late.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
        await until(lambda: server.value("request_seconds_count", code="504") == 1)


async def test_refusals_come_through_with_when_to_come_back(rig: Rig) -> None:
    pod = await rig.pod()
    async with grpc_serving(executor=ManualExecutor(), max_queue=0) as server:
        await rig.start(route_spec(both(pod, server)))
        await rig.router()
        async with client(rig) as infer:
            running = asyncio.ensure_future(infer(request().SerializeToString()))
            await until(lambda: server.dispatcher.in_flight == 1)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await infer(request().SerializeToString())
            running.cancel()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(refused.value.trailing_metadata())["x-inflight-retry-after-ms"]) > 0


@pytest.mark.parametrize(
    ("host", "status"),
    [("digits.demo", grpc.StatusCode.UNAVAILABLE), ("other.demo", grpc.StatusCode.UNIMPLEMENTED)],
    ids=["no pod is ready", "no such model"],
)
async def test_what_the_router_answers_itself_is_a_status(rig: Rig, host: str, status: grpc.StatusCode) -> None:
    await rig.start(route_spec(backend(ports=[]), weights=(0,)))
    await rig.router()
    async with client(rig, host) as infer:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await infer(b"")
    assert refused.value.code() is status
