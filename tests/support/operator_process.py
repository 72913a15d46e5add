"""The operator as a process of its own on this machine: the chart's settings, its service account's identity."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from inflight_cluster import credentials, pki
from inflight_cluster.apiserver import Running
from inflight_demo.manifests import NAMESPACE as SYSTEM
from inflight_probe.kube import Object

USER = f"system:serviceaccount:{SYSTEM}:inflight-operator"
LIFETIME_SECONDS = 45
"""Of certificates: a third of it later they are made anew."""
ADDRESS = "10.1.0.99"
"""Where the operator says that it answers; Kubernetes takes no loopback address for an endpoint."""
PLACE = {"metadata.namespace": SYSTEM, "metadata.name": "inflight-operator-0", "status.podIP": ADDRESS}
# In a pod these ports are the operator's and the routers' own; on this machine somebody may have them.
LAUNCH = """
import functools, sys
from inflight_operator.api import names
names.HTTP_PORT = int(sys.argv[1])
from inflight_operator import __main__, leader
from inflight_operator.installation import aggregation
from inflight_operator.xds.listener import Ports
leader.xds.ControlPlane = functools.partial(leader.xds.ControlPlane, ports=Ports(*map(int, sys.argv[2:])))
answers = aggregation.answers
aggregation.answers = lambda _address, *others: answers("127.0.0.1", *others)
__main__.main()
"""


@dataclass(frozen=True)
class Ports:
    """Where everybody listens on this machine."""

    xds: int
    metrics_api: int
    metrics: int
    router: int
    router_tls: int
    model: int


@asynccontextmanager
async def operator(api: Running, objects: Sequence[Object], directory: Path, ports: Ports) -> AsyncIterator[None]:
    """The operator with the chart's settings, known to the API server as its service account."""
    signer = pki.Pair(api.ca, api.ca.with_suffix(".key"))
    kubeconfig = credentials.client(directory / "client", signer, "operator", server=api.url, user=USER)
    (deployment,) = (o for o in objects if o["kind"] == "Deployment" and o["metadata"]["name"] == "inflight-operator")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {
        **os.environ,
        **{item["name"]: _value(item) for item in container["env"]},
        "KUBECONFIG": str(kubeconfig),
        "INFLIGHT_TLS_DIR": str(directory / "tls"),
        "INFLIGHT_CERTIFICATE_LIFETIME": f"{LIFETIME_SECONDS}s",
        "INFLIGHT_XDS_PORT": str(ports.xds),
        "INFLIGHT_METRICS_API_PORT": str(ports.metrics_api),
        "INFLIGHT_METRICS_PORT": str(ports.metrics),
    }
    (directory / "tls").mkdir()
    command = (sys.executable, "-c", LAUNCH, *map(str, (ports.model, ports.router, ports.router_tls)))
    with (directory / "operator.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
    try:
        yield
    except Exception as error:
        error.add_note((directory / "operator.log").read_text()[-4000:])
        raise
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)


def _value(item: Object) -> str:
    """What the kubelet would put into the environment."""
    return PLACE[item["valueFrom"]["fieldRef"]["fieldPath"]] if "valueFrom" in item else str(item["value"])


@asynccontextmanager
async def model_server(port: int) -> AsyncIterator[None]:
    """What the operator asks a model's pod: which file it serves."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"parameters": {"sha256": "0" * 64}})

    application = web.Application()
    application.router.add_get("/v2/models/{name}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()
