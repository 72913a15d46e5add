"""The edge: who may ask, with tokens that the cluster gives out, and how they come."""

import asyncio
import base64
import ssl
from collections import Counter
from dataclasses import replace

import aiohttp
import pytest

from edge_tokens import certificate
from stage import variant
from trial import kubectl, trial

ECHO = "e2e/echo/1/model.py"
NAME = "models.example"


async def account(stage, name, namespace=""):
    kubectl("create", "serviceaccount", name, "-n", namespace or stage.namespace)


async def token(stage, name, audience="inflight", namespace=""):
    """As a pod gets it that mounts a projected token, or a person by `kubectl create token`."""
    path = f"/api/v1/namespaces/{namespace or stage.namespace}/serviceaccounts/{name}/token"
    spec = {"audiences": [audience], "expirationSeconds": 600}
    return (await stage.kube.request("POST", path, {"spec": spec}))["status"]["token"]


async def ask(stage, model, token=None, **options):
    """The status and the code of the answer to a plain question."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{stage.router}/{stage.namespace}/{model}/v2/health/ready"
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers, **options) as answer:
        body = await answer.json(content_type=None) if answer.status != 200 else {}
        return answer.status, body.get("code")


async def becomes(stage, wanted, model, **options):
    async def so():
        return await ask(stage, model, **options) == wanted

    await stage.kube.wait_until(so, f"{model} answers {wanted}", seconds=30)


async def test_only_those_who_are_named_may_ask(stage):
    for name in ("client", "stranger"):
        await account(stage, name)
    named = {"access": {"serviceAccounts": [f"{stage.namespace}/client"]}}
    await stage.serve("guarded", variant("main", ECHO), traffic=named)
    good = await token(stage, "client")
    only = f"inflight/{stage.namespace}/guarded"
    ok, refused, forbidden = (200, None), (401, "unauthenticated"), (403, "forbidden")
    for what, brought, answer in (
        ("good", good, ok),
        ("good for this model alone", await token(stage, "client", only), ok),
        ("none", None, refused),
        ("garbage", "garbage", refused),
        ("spoilt", good[:-8] + "AAAAAAAA", refused),
        ("for the API server", await token(stage, "client", "https://kubernetes.default.svc"), refused),
        ("for another model", await token(stage, "client", f"{only}-not"), refused),
        ("of somebody else", await token(stage, "stranger"), forbidden),
    ):
        assert await ask(stage, "guarded", brought) == answer, what


async def test_closing_and_opening_makes_no_new_pod(stage):
    before = await stage.serve("changed", variant("main", ECHO))
    await becomes(stage, (200, None), "changed")
    closed = await stage.serve("changed", variant("main", ECHO), traffic={"access": {}})
    await becomes(stage, (401, "unauthenticated"), "changed")
    await stage.kube.patch("ModelDeployment", stage.namespace, "changed", {"spec": {"traffic": None}})
    await becomes(stage, (200, None), "changed")
    assert closed["status"]["variants"][0]["revision"] == before["status"]["variants"][0]["revision"]


def secret(directory):
    """A Secret with a certificate of its own, and what a client needs to believe it."""
    file = certificate(directory, NAME)
    files = {name: base64.b64encode((directory / name).read_bytes()).decode() for name in ("tls.crt", "tls.key")}
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "edge"},
        "type": "kubernetes.io/tls",
        "data": files,
    }
    return manifest, ssl.create_default_context(cafile=str(file))


async def test_an_installation_that_is_closed_and_speaks_https_only(stage, tmp_path):
    manifest, trusted = secret(tmp_path)
    await stage.apply(manifest)
    await account(stage, "client")
    kubectl("create", "serviceaccount", f"client-of-{stage.namespace}", "-n", "default")
    values = ("router.tls.secretName=edge", "router.tls.only=true", "router.access.default=closed")
    async with trial(stage, *values, port=443) as installed:
        own = replace(installed, router=installed.router.replace("http:", "https:"))
        served = await own.serve("silent", variant("main", ECHO))
        assert served["status"]["url"] == f"https://silent.{own.namespace}.svc"
        door = {"ssl": trusted, "server_hostname": NAME}
        ours, theirs = await token(own, "client"), await token(own, f"client-of-{own.namespace}", namespace="default")
        assert await ask(own, "silent", **door) == (401, "unauthenticated")
        assert await ask(own, "silent", ours, **door) == (200, None)
        assert await ask(own, "silent", theirs, **door) == (403, "forbidden")
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask(replace(own, router=installed.router.removesuffix(":443")), "silent")

        seen = Counter()

        async def client():
            while True:
                seen[await ask(own, "silent", ours, ssl=False)] += 1

        clients = [asyncio.create_task(client()) for _ in range(4)]
        renewed, believed = secret(tmp_path)
        await own.apply(renewed)

        async def shown():
            try:
                return await ask(own, "silent", ours, ssl=believed, server_hostname=NAME) == (200, None)
            except aiohttp.ClientConnectorCertificateError:
                return False

        await own.kube.wait_until(shown, "the renewed certificate is shown", seconds=150)
        for task in clients:
            task.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
        assert {type(end) for end in ended} == {asyncio.CancelledError}
        assert set(seen) == {(200, None)}
    kubectl("delete", "serviceaccount", f"client-of-{stage.namespace}", "-n", "default")
