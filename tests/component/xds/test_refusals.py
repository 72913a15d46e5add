"""What the router answers itself is counted by status and reason, and a client that left is no failure of ours."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp

from ports import free_port
from route_specs import backend, route_spec
from router_rig import Rig


async def test_refusals_are_counted_by_reason_and_answers_are_not(rig: Rig) -> None:
    slow, says_no = await rig.pod("slow", delay=5), await rig.pod("no")
    says_no.refuses = (500, "")
    await rig.start(
        route_spec(backend(ports=[slow.port], timeout=200)),
        route_spec(backend(ports=[says_no.port], model="no"), name="no"),
        route_spec(backend(ports=[free_port()], model="dead"), name="dead"),
        route_spec(name="empty"),
    )
    router = await rig.router()
    for host, times in (("digits.demo", 1), ("no.demo", 5), ("dead.demo", 2), ("empty.demo", 3), ("x.y", 4)):
        for _ in range(times):
            answer = await rig.ask(host=host)
            assert answer.headers.get("x-inflight-refused-by") == (None if host == "no.demo" else "router")
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(0.1):
            await rig.ask()

    async def counted() -> dict[tuple[str, str], float]:
        async with rig.http.get(f"{router.status}/stats/prometheus") as answer:
            text = await answer.text()
        found = {}
        for line in text.splitlines():
            if line.startswith("envoy_inflight_refused{"):
                labels, _, value = line.rpartition(" ")
                status, reason = (labels.split(f'{name}="')[1].split('"')[0] for name in ("status", "reason"))
                found[status, reason] = float(value)
        return found

    await asyncio.sleep(0.5)
    assert await counted() == {
        ("504", "UpstreamRequestTimeout"): 1,
        ("503", "UpstreamRetryLimitExceeded,UpstreamConnectionFailure"): 2,
        ("503", "-"): 3,
        ("404", "NoRouteFound"): 4,
        ("499", "DownstreamConnectionTermination"): 1,
    }
