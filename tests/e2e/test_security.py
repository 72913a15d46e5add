"""Everything runs as a restricted pod, where nothing else is admitted, and opens no more doors than it has to."""

import asyncio
import ssl

import aiohttp
import pytest

from inflight_demo import cluster
from inflight_probe.kube import ApiError
from stage import variant

PRIVILEGED = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "privileged"},
    "spec": {"containers": [{"name": "it", "image": "it", "securityContext": {"privileged": True}}]},
}


@pytest.mark.parametrize("namespace", [cluster.SYSTEM, cluster.NAMESPACE])
async def test_the_namespaces_really_admit_restricted_pods_only(stage, namespace):
    pod = {**PRIVILEGED, "metadata": {"name": "privileged", "namespace": namespace}}
    with pytest.raises(ApiError, match="violates PodSecurity"):
        await stage.kube.apply(pod)


async def test_a_model_runs_where_only_restricted_pods_may(stage):
    with pytest.raises(ApiError, match="violates PodSecurity"):
        await stage.apply({**PRIVILEGED, "metadata": {"name": "privileged"}})
    await stage.serve("modest", variant("main", "e2e/echo/1/model.py"))


async def test_no_pod_of_ours_holds_a_token_it_does_not_need(stage):
    await stage.serve("tokenless", variant("main", "e2e/echo/1/model.py"))
    pods = await stage.owned("Pod", "tokenless") + await stage.kube.list_all(
        "Pod", cluster.SYSTEM, "app.kubernetes.io/component=router"
    )
    mounts = [m["mountPath"] for p in pods for c in p["spec"]["containers"] for m in c.get("volumeMounts", [])]
    assert pods
    assert not any("serviceaccount" in mount for mount in mounts)


async def test_every_container_that_runs_has_a_read_only_root_and_no_capability(stage):
    """Admission does not ask for the read-only root, so it is looked for in what runs."""
    await stage.serve("modest", variant("main", "e2e/echo/1/model.py"))
    pods = await stage.owned("Pod", "modest") + await stage.kube.list_all(
        "Pod", cluster.SYSTEM, "app.kubernetes.io/part-of=inflight"
    )
    containers = [c for p in pods for c in (*p["spec"].get("initContainers", []), *p["spec"]["containers"])]
    assert {c["name"] for c in containers} >= {"server", "envoy", "operator"}
    for container in containers:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"], container["name"]
        assert not context["allowPrivilegeEscalation"], container["name"]
        assert context["capabilities"] == {"drop": ["ALL"]}, container["name"]
        assert "memory" in container["resources"]["limits"], container["name"]


async def test_what_administers_the_router_answers_nobody_outside_its_pod(stage):
    routers = await stage.kube.list_all("Pod", cluster.SYSTEM, "app.kubernetes.io/component=router")
    address = next(p["status"]["podIP"] for p in routers if p["status"]["phase"] == "Running")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(address, 9901)
    async with aiohttp.ClientSession() as http:
        for path in ("/config_dump", "/quitquitquit", "/stats", "/ready/../config_dump"):
            async with http.get(f"http://{address}:9091{path}") as answer:
                assert answer.status == 404, path
        async with http.post(f"http://{address}:9091/ready") as answer:
            assert answer.status == 404


async def test_who_shows_no_certificate_is_told_nothing_by_the_operator(stage):
    """Neither routes, by which all tenants' pods could be found, nor anybody's load."""
    leader = await stage.kube.get("EndpointSlice", cluster.SYSTEM, "inflight-operator")
    address = leader["endpoints"][0]["addresses"][0]
    assert await _first_word_of_http2(address, 18000) == b""
    metric = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/demo/deployments.apps/a/inflight_requests"
    forged = {"X-Remote-User": "system:admin", "X-Remote-Group": "system:masters"}
    connector = aiohttp.TCPConnector(ssl=False)
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get(f"https://{address}:8443{metric}", headers=forged) as answer,
    ):
        assert answer.status == 401


async def _first_word_of_http2(address: str, port: int) -> bytes:
    """What a server over TLS says to a client without a certificate; nothing when it wants one."""
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    anybody.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(address, port, ssl=anybody)
    try:
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        return await reader.read(64)
    except (ssl.SSLError, ConnectionError):
        return b""  # with TLS 1.3 the refusal comes after the client's handshake
    finally:
        writer.close()
