"""Who may ask, with a real API server that gives out tokens: whose keys are read, and what the owner is told."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from aiohttp import web

from edge_tokens import Issuer, certificate
from inflight_cluster import tools
from inflight_cluster.apiserver import Running
from inflight_operator.api.jwks import Keys, public_keys
from inflight_operator.api.spec import Access
from inflight_operator.desired import access
from inflight_operator.errors import TransientError
from inflight_operator.observe import keys
from reconciling import NAMESPACE, Bench
from route_specs import backend, route_spec
from router_rig import Rig

KEY = (NAMESPACE, "digits")
US = Issuer("https://login.example/")
URI = "https://login.example/keys"


@pytest.fixture
def kubectl(api: Running) -> Callable[..., str]:
    program = str(tools.ensure(["kubectl"])["kubectl"])

    def run(*arguments: str) -> str:
        command = [program, "--kubeconfig", str(api.kubeconfig), "-n", NAMESPACE, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    return run


async def test_a_real_token_opens_a_real_router(
    bench: Bench, kubectl: Callable[..., str], tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for name in ("client", "stranger"):
        kubectl("create", "serviceaccount", name)
    cluster = await keys.of_cluster(bench.kube)
    allowed = Access((f"{NAMESPACE}/client",), None)
    issuers = access.issuers(KEY, allowed, {access.CLUSTER: cluster}.get)
    async with AsyncExitStack() as stack:
        rig = Rig(tmp_path, stack, await stack.enter_async_context(aiohttp.ClientSession()))
        pod = await rig.pod()
        await rig.start(replace(route_spec(backend(ports=[pod.port]), namespace=NAMESPACE), access=issuers))
        await rig.router()
        for name, audience, status in (
            ("client", "inflight", 200),
            ("client", f"inflight/{NAMESPACE}/digits", 200),
            ("client", f"inflight/{NAMESPACE}/other", 401),
            ("client", "", 401),  # for the API server
            ("stranger", "inflight", 403),
        ):
            with subtests.test(f"{name} {audience}"):
                token = kubectl("create", "token", name, *([f"--audience={audience}"] if audience else []))
                answer = await rig.ask(host=f"digits.{NAMESPACE}", headers={"Authorization": f"Bearer {token}"})
                assert answer.status == status, answer


def test_every_service_account_may_read_the_keys(api: Running, kubectl: Callable[..., str]) -> None:
    """So the operator needs no right of its own for it, in named namespaces either."""
    kubectl("create", "serviceaccount", "nobody")
    headers = {"Authorization": f"Bearer {kubectl('create', 'token', 'nobody')}"}
    with httpx.Client(base_url=api.url, verify=api.client_context(), headers=headers) as http:
        for path in ("/.well-known/openid-configuration", "/openid/v1/jwks"):
            assert http.get(path).status_code == 200


Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def issuer(directory: Path, serve: Serve, name: str = "localhost") -> AsyncIterator[tuple[str, ssl.SSLContext]]:
    """An HTTPS server with a certificate for `name`; its URL, and what a client needs to believe it."""
    file = certificate(directory, name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file, file.with_suffix(".key"))
    application = web.Application()
    application.router.add_get("/{path:.*}", serve)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        port = runner.addresses[0][1]
        yield f"https://localhost:{port}/keys", ssl.create_default_context(cafile=str(file))
    finally:
        await runner.cleanup()


async def test_the_keys_of_an_issuer_are_read_where_it_shows_them(tmp_path: Path) -> None:
    async def serve(request: web.Request) -> web.Response:
        assert "Authorization" not in request.headers
        return web.Response(text=US.keys)

    async with issuer(tmp_path, serve) as (url, trusted):
        assert await keys.at(url, trusted) == Keys(public_keys(US.keys))


async def elsewhere(request: web.Request) -> web.Response:
    if request.path != "/elsewhere":
        raise web.HTTPFound("/elsewhere")
    return web.Response(text=US.keys)


async def endless(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    for _ in range(10_000):
        await answer.write(b" " * 65536)
    return answer


def saying(text: str, status: int = 200) -> Serve:
    async def serve(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status)

    return serve


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        pytest.param(elsewhere, "answers 302", id="sends elsewhere"),
        pytest.param(saying("no", 404), "answers 404", id="has none"),
        pytest.param(saying("<html>secret</html>"), "not a set of JSON Web Keys", id="shows a page"),
        pytest.param(saying('{"keys": []}'), "no public key", id="shows no key"),
        pytest.param(endless, "the answer is too long", id="never ends"),
    ],
)
async def test_what_is_no_key_set_is_not_believed_nor_repeated(tmp_path: Path, serve: Serve, words: str) -> None:
    async with issuer(tmp_path, serve) as (url, trusted):
        with pytest.raises(TransientError, match=words) as error:
            await keys.at(url, trusted)
        assert "secret" not in str(error.value)


async def test_a_server_that_cannot_prove_its_name_is_sent_nothing(tmp_path: Path) -> None:
    """So a URL that leads to something inside the cluster, or to nobody, does nothing, and all of it looks the same."""
    asked = []

    async def serve(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(text=US.keys)

    words = []
    for name, believed in (("localhost", False), ("other.example", True)):
        async with issuer(tmp_path / name, serve, name) as (url, trusted):
            with pytest.raises(TransientError) as error:
                await keys.at(url, trusted if believed else True)
            words.append(str(error.value).replace(url, "URL"))
    with pytest.raises(TransientError) as error:
        await keys.at("https://localhost:1/keys")
    words.append(str(error.value).replace("https://localhost:1/keys", "URL"))
    assert (asked, set(words)) == ([], {"URL can't be reached, or its certificate is not good"})


def spec(**fields: Any) -> dict[str, Any]:
    return {"variants": [{"name": "v", "model": {"uri": "s3://models/1"}}], **fields}


def asking(**fields: Any) -> dict[str, Any]:
    return spec(traffic={"access": fields})


def ready(resource: dict[str, Any]) -> tuple[str, str]:
    return next((c["reason"], c["message"]) for c in resource["status"]["conditions"] if c["type"] == "Ready")


async def test_the_owner_is_told_whose_keys_are_missing_until_they_are_there(bench: Bench) -> None:
    jwt = {"issuer": "https://login.example/", "audiences": ["models"], "jwksUri": URI}
    await bench.put("locked", asking(jwt=jwt))
    await bench.settle("locked")
    await bench.keyring.prime([URI], 1)
    await bench.settle("locked")
    told = ready(await bench.get("ModelDeployment", "locked"))
    assert told == ("KeysMissing", f"Tokens can't be checked yet: {URI} can't be reached.")
    (nobody,) = bench.routers.routes[NAMESPACE, "locked"].access
    assert nobody.keys == ""

    bench.keys[URI] = Keys("theirs")
    await bench.keyring.prime([URI], 1)
    await bench.settle("locked")
    assert ready(await bench.get("ModelDeployment", "locked"))[0] == "Complete"
    (them,) = bench.routers.routes[NAMESPACE, "locked"].access
    assert them.keys == "theirs"


async def test_a_change_of_who_may_ask_makes_no_new_revision(bench: Bench) -> None:
    await bench.put("guarded", spec())
    await bench.settle("guarded")
    before = await bench.names_of("Deployment", "guarded")
    assert bench.routers.routes[NAMESPACE, "guarded"].access is None
    await bench.put("guarded", asking(serviceAccounts=["batch/runner"]))
    await bench.settle("guarded")
    assert await bench.names_of("Deployment", "guarded") == before
    (issuer_,) = bench.routers.routes[NAMESPACE, "guarded"].access
    assert issuer_.subjects == ("system:serviceaccount:batch:runner",)


async def test_where_the_installation_is_closed_so_is_who_says_nothing(bench: Bench) -> None:
    bench.restart(access_closed=True)
    await bench.put("silent", spec())
    await bench.settle("silent")
    (own,) = bench.routers.routes[NAMESPACE, "silent"].access
    assert own.subjects == (f"system:serviceaccount:{NAMESPACE}:*",)


async def test_keys_that_are_none_are_a_mistake_of_the_owner(bench: Bench) -> None:
    jwt = {"issuer": "https://login.example/", "audiences": ["models"], "jwks": '{"keys": [7]}'}
    await bench.put("mistaken", asking(jwt=jwt))
    await bench.reconcile("mistaken")
    reason, message = ready(await bench.get("ModelDeployment", "mistaken"))
    assert (reason, message.split(":")[0]) == ("InvalidSpec", "spec.traffic.access.jwt.jwks")


async def test_an_operator_that_starts_reads_all_keys_before_it_says_anything(bench: Bench) -> None:
    bench.keys = {access.CLUSTER: Keys("ours", "https://kubernetes.default.svc")}
    await bench.put("known", asking(serviceAccounts=["batch/runner"]))
    await bench.settle("known")
    bench.restart()
    await bench.refresh()
    await bench.reconciler.prime()
    await bench.reconcile("known")
    (cluster,) = bench.routers.routes[NAMESPACE, "known"].access
    assert (cluster.issuer, cluster.keys) == ("https://kubernetes.default.svc", "ours")
