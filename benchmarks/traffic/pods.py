"""Pods that go while they are asked: deleted in peace, killed, and drained with a long request on them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

from benchmarks.control.result import Result
from benchmarks.control.world import NAMESPACE, World
from benchmarks.traffic.prober import RATE, Probe, all_ready, lost, probing, serving, waiting
from inflight_demo.console import Console
from inflight_probe import pods
from inflight_probe.infer import output, request_body, sender, session, through
from inflight_probe.kube import Object, condition
from inflight_probe.load import Reply, Run, Send, open_loop
from inflight_probe.scaling import OWNER
from model_server.grpc_api.messages import ModelInferRequest, ModelInferResponse

_ENOUGH = 10_000
_TIMES = 20
_REPLICAS = 4


async def deleted(world: World, console: Console) -> list[Result]:
    """20 pods deleted, one after the other."""
    name = "deleted"
    async with serving(world, waiting(name, {"main": 100}, _REPLICAS)), probing(world, name) as probe:
        for number in range(world.some(_TIMES, 2)):
            pod = (await _ready(world, name))[0]
            await world.kube.delete("Pod", NAMESPACE, pod["metadata"]["name"])
            await _replaced(world, name, pod)
            console.progress(number + 1, world.some(_TIMES, 2), "pods deleted")
        await _until(world, probe)
    return [lost("deleted", "20 pods deleted", probe, world, at_least=_ENOUGH)]


async def killed(world: World, console: Console) -> list[Result]:
    """20 pods killed: what was on them is lost, and nothing else."""
    return [await _killed(world, console, "killed", idempotent=False)]


async def killed_idempotent(world: World, console: Console) -> list[Result]:
    """The same where a request may be executed twice: it is asked of another pod."""
    return [await _killed(world, console, "killed-idempotent", idempotent=True)]


async def _killed(world: World, console: Console, row: str, *, idempotent: bool) -> Result:
    """The server's processes get SIGKILL, and nobody is told. Ten pods: the kubelet lets one that dies often wait for
    minutes."""
    times = world.some(_TIMES, 2)
    made = waiting(row, {"main": 100}, 10, traffic={"idempotent": idempotent})
    kills: list[float] = []
    async with serving(world, made), probing(world, row) as probe:
        await asyncio.sleep(1)
        for number in range(times):
            found = await _ready(world, row)
            pod = found[number % len(found)]
            kills.append(time.perf_counter() - probe.began)
            kill(pod)
            await asyncio.sleep(2)
            await world.kube.wait_until(lambda: all_ready(world, row), "the pod is back", seconds=180)
            console.progress(number + 1, times, "pods killed")
        await _until(world, probe, 30_000)
    stray = [o.due for o in probe.run.failed if not any(kill - 1 < o.due < kill + 0.05 for kill in kills)]
    share = 100 * len(probe.run.ok) / len(probe.run.outcomes)
    what = "20 pods killed (SIGKILL)" + (", idempotent: what was on them is tried elsewhere" if idempotent else "")
    result = lost(row, what, probe, world, at_least=30_000, stray_s=stray, kills_s=[round(k, 2) for k in kills])
    if idempotent:
        return result
    return replace(
        result,
        goal="only what was in flight on the pod; >= 99.9 % of >= 30,000 answered",
        measured=f"{result.measured}; {share:.3f} %, {len(stray)} that were not on the pod",
        kept=not stray and share >= 99.9 and len(probe.run.outcomes) >= world.some(30_000, 100),
    )


async def drained(world: World, console: Console) -> list[Result]:
    """100 requests of 20 s on pods that are deleted while they are at it."""
    return [await _drained(world, console, "drained", "requests of 20 s on pods that are deleted half way")]


async def drained_grpc(world: World, console: Console) -> list[Result]:
    """The same by gRPC, through the same port of the router: calls of 20 s, all on one connection."""
    name = "drained-grpc"
    async with calling(world, name) as send:
        what = "gRPC calls of 20 s on pods that are deleted half way"
        return [await _drained(world, console, name, what, call=send)]


async def _drained(world: World, console: Console, row: str, what: str, call: Send | None = None) -> Result:
    async def delete(pod: Object) -> None:
        await world.kube.delete("Pod", NAMESPACE, pod["metadata"]["name"])

    count = world.some(100, 10)
    right, asked, why = await _leaving_at_work(world, console, row, count, delete, call=call)
    return Result(
        suite="traffic",
        row=row,
        what=what,
        goal="100 of 100 answered right",
        measured=f"{right} of {asked}",
        kept=right == asked == count,
        data={"why": why},
        quick=world.quick,
    )


@asynccontextmanager
async def calling(world: World, name: str) -> AsyncIterator[Send]:
    """Asks by gRPC, without retries; each call carries a number that the answer has to send back."""
    host = urlsplit(world.router)
    options = (("grpc.default_authority", f"{name}.{NAMESPACE}"), ("grpc.enable_retries", 0))
    async with grpc.aio.insecure_channel(f"{host.hostname}:{host.port or 80}", options=options) as channel:
        infer: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        async def send(number: int) -> Reply:
            asked = ModelInferRequest(model_name=name)
            asked.inputs.add(name="x", datatype="FP32", shape=[1, 1]).contents.fp32_contents.append(number)
            call = infer(asked.SerializeToString(), timeout=90)
            try:
                answer = ModelInferResponse.FromString(await call)
            except grpc.aio.AioRpcError as error:
                return Reply(0, f"{error.code().name}: {error.details()}"[:120])
            headers = dict(await call.initial_metadata())
            variant, revision = (str(headers.get(f"x-inflight-{what}", "")) for what in ("variant", "revision"))
            return Reply(200, "", variant, revision, answer.outputs[0].contents.fp32_contents[0])

        yield send


async def cut(world: World, console: Console) -> list[Result]:
    """`drained` with its protection taken away: no drain. It has to fail, or `drained` says nothing."""

    async def leave(pod: Object) -> None:
        kill(pod)

    count = world.some(20, 10)
    right, asked, why = await _leaving_at_work(world, console, "cut", count, leave)
    return [
        Result(
            suite="traffic",
            row="cut",
            what="the same without a drain: the pod is killed half way",
            goal="fails",
            measured=f"{right} of {asked} answered right",
            kept=right < asked,
            data={"why": why},
            quick=world.quick,
        )
    ]


async def _leaving_at_work(
    world: World,
    console: Console,
    name: str,
    count: int,
    leave: Callable[[Object], Awaitable[None]],
    *,
    call: Send | None = None,
) -> tuple[int, int, dict[str, int]]:
    """So many long requests, twenty at a time, on two pods, one of which leaves half way; by HTTP, or as `call` does
    it. (right answers, requests, why the others failed)"""
    wait = world.some(20_000, 3_000)
    made = waiting(name, {"main": 100}, 2, wait=wait, timeout=60_000)
    async with serving(world, made), session(timeout_seconds=90) as http:
        bodies = [request_body("x", [[float(n)]]) for n in range(count)]
        target = through(world.router, NAMESPACE, name)
        send = call or sender(http, target, bodies, lambda _n, answer: output(answer))
        running: list[Run] = []
        for first in range(0, count, 20):
            some = min(20, count - first)
            batch = asyncio.create_task(open_loop(_from(send, first), rate=20, count=some))
            await asyncio.sleep(wait / 2000)
            pod = (await _ready(world, name))[0]
            await leave(pod)
            running.append(await batch)
            await world.kube.wait_until(lambda: all_ready(world, name), "the pod is replaced", seconds=180)
            console.progress(first + 20, count, "long requests")
    outcomes = [o for run in running for o in run.outcomes]
    right = sum(
        o.ok and o.reply.answer == first * 20 + o.number for first, run in enumerate(running) for o in run.outcomes
    )
    return right, len(outcomes), dict(Run(outcomes).why())


def _from(send: Send, first: int) -> Send:
    """The requests from that number on."""
    return lambda number: send(first + number)


def kill(pod: Object) -> None:
    """Its server's processes get SIGKILL, and nobody is told."""
    for pid in pods.processes(pod["metadata"]["uid"]):
        os.kill(pid, signal.SIGKILL)


async def _ready(world: World, name: str) -> list[Object]:
    """Ready pods, the oldest first."""
    found = await world.kube.list_all("Pod", NAMESPACE, f"{OWNER}={name}")
    good = [p for p in found if condition(p, "Ready").get("status") == "True" and not _leaving(p)]
    return sorted(good, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def _leaving(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


async def _replaced(world: World, name: str, old: Object) -> None:
    async def fresh() -> bool:
        there = {pod["metadata"]["uid"] for pod in await _ready(world, name)}
        return old["metadata"]["uid"] not in there and await all_ready(world, name)

    await asyncio.sleep(0.5)
    await world.kube.wait_until(fresh, "another pod is ready", seconds=180)


async def _until(world: World, probe: Probe, enough: int = _ENOUGH) -> None:
    await asyncio.sleep(max(3.0, (world.some(enough, 100) - probe.asked) / RATE + 1))
