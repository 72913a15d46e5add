"""What clients see of weights, variants and rollouts."""

import asyncio
import math
from collections import Counter

import aiohttp

from inflight_probe.infer import session
from inflight_probe.kube import condition
from inflight_probe.load import closed_loop
from inflight_probe.stats import shares
from stage import deployment, variant


async def test_traffic_is_split_by_the_weights_and_says_who_answered(stage):
    both = [variant("stable", "e2e/echo/1/model.py", 80), variant("candidate", "e2e/echo/2/model.py", 20)]
    stored = await stage.serve("split", *both)
    revisions = {v["name"]: v["revision"] for v in stored["status"]["variants"]}
    async with stage.sending("split") as send:
        run = await closed_loop(send, clients=4, count=2_000)
    assert run.why() == {}
    split = shares(run.variants(), {"stable": 80, "candidate": 20})
    assert all(share.within() for share in split), split
    assert {(o.reply.variant, o.reply.revision) for o in run.ok} == set(revisions.items())


async def test_a_host_that_another_one_has_is_told_and_comes_when_it_is_free(stage):
    hosts = {"hosts": ["shared.ml.example"]}
    await stage.serve("first", variant("v", "e2e/echo/1/model.py"), traffic=hosts)
    await stage.apply(deployment("second", variant("v", "e2e/echo/1/model.py"), traffic=hosts))
    told = await stage.says("second", "False", {"RouteConflict"}, seconds=60)
    assert told["message"] == "Requests for shared.ml.example go to ModelDeployment first. All else is answered."
    await stage.kube.delete("ModelDeployment", stage.namespace, "first")
    stored = await stage.ready("second")
    assert stored["status"]["hosts"] == ["shared.ml.example"]


async def test_a_user_keeps_his_variant_and_a_change_of_weights_moves_only_whom_it_has_to(stage):
    """The operators are replaced in between: who is where survives them."""
    sticky = {"sticky": {"header": "x-user-id"}}

    async def serve(weight):
        return await stage.serve(
            "sticky",
            variant("stable", "e2e/echo/1/model.py", 100 - weight),
            variant("candidate", "e2e/echo/2/model.py", weight),
            traffic=sticky,
        )

    async def where():
        async with session() as http:
            found = []
            for user in range(500):
                url = f"{stage.router}/{stage.namespace}/sticky/v2/health/ready"
                async with http.get(url, headers={"x-user-id": f"user-{user}"}) as answer:
                    assert answer.status == 200
                    found.append(answer.headers["x-inflight-variant"])
            return found

    await serve(10)
    first = await where()
    assert await where() == first
    (split,) = shares(Counter(first), {"stable": 90, "candidate": 10})[:1]
    assert split.within()
    async with stage.without_operator():
        assert await where() == first
    told = await serve(20)
    places = Counter()
    for run in told["status"]["sticky"]:
        places[run["variant"]] += run["places"]
    assert places == {"stable": 80, "candidate": 20}
    second = await where()
    moved = [(a, b) for a, b in zip(first, second, strict=True) if a != b]
    assert set(moved) == {("stable", "candidate")}
    assert len(moved) <= 0.1 * 500 + 4 * math.sqrt(500 * 0.1 * 0.9)


async def served(stage, name, which):
    """Predictions that the ready pods of a variant have answered, as they count them. The HPA may just have asked for
    another one, which has answered nothing and nobody yet."""
    total = 0.0
    for pod in await stage.owned("Pod", name):
        ready = condition(pod, "Ready").get("status") == "True"
        if ready and pod["metadata"]["labels"]["serving.inflight.dev/variant"] == which:
            async with session() as http, http.get(f"http://{pod['status']['podIP']}:9090/metrics") as answer:
                lines = (await answer.text()).splitlines()
            counted = [line for line in lines if line.startswith("inflight_server_request_seconds_count{")]
            total += sum(float(line.rsplit(" ", 1)[1]) for line in counted)
    return total


async def test_a_shadow_gets_copies_and_answers_nobody(stage):
    """The shadow takes 200 ms: users don't."""
    both = [variant("stable", "e2e/echo/1/model.py", 100), variant("shadow", "e2e/slow/1/model.py", 0)]
    await stage.serve("mirrored", *both, traffic={"mirror": {"variant": "shadow", "percent": 50}})
    async with stage.load("mirrored", rate=20) as run:
        await asyncio.sleep(10)
    assert run.why() == {}
    assert run.variants() == {"stable": len(run.ok)}
    assert run.milliseconds(50) < 150
    await asyncio.sleep(2)
    copies, half = await served(stage, "mirrored", "shadow"), len(run.ok) / 2
    assert 1 <= copies <= half + 4 * math.sqrt(half / 2)


async def test_one_variant_can_be_asked_for(stage):
    both = [variant("stable", "e2e/echo/1/model.py", 100), variant("candidate", "e2e/echo/2/model.py", 0)]
    await stage.serve("direct", *both)
    async with stage.sending("direct", "candidate") as send, stage.sending("direct") as split:
        asked = await closed_loop(send, clients=2, count=50)
        given = await closed_loop(split, clients=2, count=50)
    assert asked.variants() == {"candidate": 50}
    assert given.variants() == {"stable": 50}


async def test_nothing_but_the_model_is_reached_through_the_router(stage):
    await stage.serve("closed", variant("main", "e2e/echo/1/model.py"))
    root = f"/{stage.namespace}/closed"
    async with session() as http:
        for path in (f"{root}/metrics", f"{root}/variants/main/metrics", "/metrics", "/stats", "/config_dump", "/"):
            async with http.get(f"{stage.router}{path}") as answer:
                assert answer.status == 404, path
        async with http.get(f"{stage.router}{root}/v2/health/ready") as answer:
            assert answer.status == 200


async def test_a_new_model_takes_over_without_a_lost_request(stage):
    """Seen failing (503) when the weight moves to a revision before it is ready."""
    before = await stage.serve("rolled", variant("main", "e2e/echo/1/model.py"))
    async with stage.load("rolled", rate=50) as run:
        await asyncio.sleep(2)
        await stage.serve("rolled", variant("main", "e2e/echo/2/model.py"))
        await asyncio.sleep(10)
    after = await stage.get("ModelDeployment", "rolled")
    assert run.why() == {}
    old, new = (md["status"]["variants"][0]["revision"] for md in (before, after))
    assert old != new
    seen = [o.reply.revision for o in run.ok]
    assert set(seen) == {old, new}
    assert seen[-1] == new


async def test_weights_move_without_a_lost_request(stage):
    def split(stable):
        return [
            variant("stable", "e2e/echo/1/model.py", stable),
            variant("candidate", "e2e/echo/2/model.py", 100 - stable),
        ]

    await stage.serve("moved", *split(95))
    async with stage.load("moved", rate=50) as run:
        for stable in (5, 95, 0, 100):
            await stage.serve("moved", *split(stable))
            await asyncio.sleep(2)
    assert run.why() == {}


async def test_a_name_that_nobody_has_is_not_found(stage):
    async with aiohttp.ClientSession(stage.router) as http:
        async with http.get("/", headers={"host": f"nobody.{stage.namespace}"}) as answer:
            assert answer.status == 404
        async with http.get(f"/{stage.namespace}/nobody/v2") as answer:
            assert answer.status == 404
