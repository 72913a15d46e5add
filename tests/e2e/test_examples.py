"""Every example manifest becomes Ready and answers, as it is written."""

import asyncio
import json

import aiohttp
import pytest

from inflight_demo import ready
from inflight_demo.cluster import CLUSTER
from inflight_probe.infer import output, request_body, sender, session, through
from inflight_probe.load import closed_loop
from inflight_probe.scaling import OWNER

IMAGES = ("digits", "sklearn", "image", "experiment", "shadow")
"""Examples that read handwritten digits; the others answer whatever they are asked."""
JSON = {"content-type": "application/json"}
NUMBERS = ("waiting", "calculate", "elsewhere")


def test_every_example_is_a_case():
    assert {file.stem for file in ready.EXAMPLES.glob("*.yaml")} == {*IMAGES, *NUMBERS}


async def serve_example(stage, example):
    stored = await ready.apply_example(stage.kube, example, stage.namespace)
    name = stored["metadata"]["name"]
    await stage.ready(name, seconds=120)
    return name


@pytest.mark.parametrize("example", IMAGES)
async def test_an_example_reads_digits_it_never_saw(stage, installed, example):
    name = await serve_example(stage, example)
    digits = installed.digits
    bodies = [request_body("images", [image]) for image in digits.images]
    async with session(4) as http:
        send = sender(http, through(stage.router, stage.namespace, name), bodies, lambda _n, a: int(output(a)))
        run = await closed_loop(send, clients=4, count=len(bodies))
    assert run.why() == {}
    right = sum(o.reply.answer == digits.labels[o.number] for o in run.ok)
    assert right / len(bodies) > 0.95


async def test_in_an_experiment_each_user_sees_one_model_and_a_tester_the_candidate(stage, installed):
    name = await serve_example(stage, "experiment")
    body = request_body("images", installed.digits.images[:1])
    url = f"/{stage.namespace}/{name}/v2/models/{name}/infer"

    async def ask(http, **headers):
        async with http.post(url, data=body, headers={**JSON, **headers}) as answer:
            assert answer.status == 200, await answer.text()
            return answer.headers["x-inflight-variant"], answer.cookies

    async with aiohttp.ClientSession(stage.router, cookie_jar=aiohttp.DummyCookieJar()) as http:
        users = [await ask(http) for _ in range(60)]
        assert {variant for variant, _ in users} == {"stable", "candidate"}
        for variant, cookies in users:
            cookie = cookies["inflight-user"]
            assert cookie["max-age"] == "86400"
            again, none = await ask(http, cookie=f"inflight-user={cookie.value}")
            assert again == variant
            assert not none
        assert {(await ask(http, **{"x-qa": "1"}))[0] for _ in range(20)} == {"candidate"}


@pytest.mark.parametrize("example", NUMBERS)
async def test_an_example_answers(stage, example):
    name = await serve_example(stage, example)
    async with stage.sending(name) as send:
        run = await closed_loop(send, clients=1, count=3)
    assert run.why() == {}


async def test_what_a_pod_without_a_queue_refuses_the_other_one_takes(stage):
    """Two pods of one request at a time, two clients: routers that know nothing of each other send both to one pod."""
    stored = await stage.ready(await serve_example(stage, "elsewhere"))
    assert stored["status"]["hosts"] == ["elsewhere.ml.example"]
    assert stored["status"]["hedging"].keys() <= {"message", "afterMilliseconds"}
    async with stage.sending("elsewhere") as send:
        run = await closed_loop(send, clients=2, count=200)
    assert run.why() == {}
    async with aiohttp.ClientSession(stage.router) as http:
        headers = {**JSON, "host": "elsewhere.ml.example"}
        async with http.post("/v2/models/elsewhere/infer", data=request_body("x", [[7.0]]), headers=headers) as answer:
            assert output(await answer.json()) == 7.0


async def test_a_model_is_reached_by_host_by_path_and_by_its_service(stage, installed):
    name = await serve_example(stage, "digits")
    body = request_body("images", installed.digits.images[:1])
    infer = f"/v2/models/{name}/infer"
    host = f"{name}.{stage.namespace}"
    async with aiohttp.ClientSession(stage.router) as http:
        for path, headers in (
            (f"/{stage.namespace}/{name}{infer}", {}),
            (infer, {"host": host}),
            (infer, {"host": f"{host}.svc"}),
            (infer, {"host": f"{host}.svc.cluster.local"}),
        ):
            async with http.post(path, data=body, headers={**JSON, **headers}) as answer:
                assert answer.status == 200, (path, headers, await answer.text())
                assert int(output(await answer.json())) == installed.digits.labels[0]
    assert await from_a_pod(stage, name, f"http://{host}.svc{infer}", body.decode()) == installed.digits.labels[0]


async def from_a_pod(stage, name: str, url: str, body: str) -> int:
    """Ask from within the cluster, by the Service's DNS name, with what a model server's image has anyway."""
    pod = (await stage.kube.list_all("Pod", stage.namespace, f"{OWNER}={name}"))[0]["metadata"]["name"]
    code = (
        "import sys, urllib.request as r; q = r.Request(sys.argv[1], sys.argv[2].encode(), "
        "{'content-type': 'application/json'}); print(r.urlopen(q, timeout=10).read().decode())"
    )
    command = [CLUSTER, "kubectl", "exec", "-n", stage.namespace, pod, "--", "python3", "-c", code, url, body]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return int(output(json.loads(out)))
