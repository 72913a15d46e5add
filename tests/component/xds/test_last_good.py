"""A router that starts while no operator answers, by the chart's script: it serves what was known last, or waits."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

import edge_tokens
from inflight_operator.xds import lastgood
from inflight_operator.xds.model import Endpoint, Issuer, RouteSpec
from local_envoy import CHART_FILES, ENVOY, bootstrap, envoy, with_ports
from pods import Pod
from ports import free_port
from route_specs import backend, route_spec
from router_rig import Rig

pytestmark = pytest.mark.timeout(90)
PATIENCE = 1


@dataclass
class Router:
    """start.sh as a router's container runs it."""

    directory: Path
    process: asyncio.subprocess.Process
    status_port: int
    log: Path

    async def ready(self) -> bool:
        try:
            async with (
                aiohttp.ClientSession() as http,
                http.get(f"http://127.0.0.1:{self.status_port}/ready") as answer,
            ):
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def until_ready(self, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not await self.ready():
                assert self.process.returncode is None, self.log.read_text()[-3000:]
                await asyncio.sleep(0.05)


@asynccontextmanager
async def started(rig: Rig, files: Mapping[str, bytes] | None, xds_port: int) -> AsyncIterator[Router]:
    """A router's container, with what the ConfigMap would hold mounted (None: there is none)."""
    directory = rig.directory / "container"
    (directory / "last-good").mkdir(parents=True)
    for name, content in (files or {}).items():
        (directory / "last-good" / f"{name}.gz").write_bytes(gzip.compress(content))
    admin, status = free_port(), free_port()
    asking = bootstrap(directory, xds_port=xds_port, admin_port=admin, status_port=status, tls=None)
    from_files = with_ports("bootstrap-last-good.yaml", admin, status)
    for name, config in (("bootstrap.yaml", asking), ("bootstrap-last-good.yaml", from_files)):
        text = yaml.safe_dump(config).replace(lastgood.DIRECTORY, str(directory / "unpacked"))
        (directory / name).write_text(text)
    (directory / "bin").mkdir()
    (directory / "bin" / "envoy").symlink_to(ENVOY)
    told = {
        "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
        "INFLIGHT_CONFIG_DIR": str(directory),
        "INFLIGHT_LAST_GOOD_DIR": str(directory / "unpacked"),
        "INFLIGHT_STATUS_PORT": str(status),
        "INFLIGHT_PATIENCE_SECONDS": str(PATIENCE),
        "INFLIGHT_BASE_ID": str(status),  # Envoys of one machine tell each other apart by it
    }
    command = ["bash", str(CHART_FILES / "start.sh"), f"127.0.0.1:{xds_port}"]
    arguments = ["--service-node", "started", "--service-cluster", "inflight-router", "--concurrency", "1"]
    log = directory / "log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, *arguments, "--log-level", "warning", env=told, stdout=output, stderr=output, process_group=0
        )
    try:
        yield Router(directory, process, status, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.wait()


async def known(rig: Rig, spec: RouteSpec, service: Pod, **options: Any) -> dict[str, bytes]:
    """What an operator, gone by the end of this, has left behind: routes that a router had accepted."""
    await rig.start(spec)
    async with envoy(rig.directory / "before", rig.xds_port, node="before", **options) as router:
        await router.until_ready()
        await rig.programmed(("demo", "digits"))
        good = rig.plane.good()
    assert good is not None
    await rig.stop_operator()
    services = dict.fromkeys(good.clusters, Endpoint("127.0.0.1", service.port))
    return lastgood.files(good, services, str(rig.directory / "container" / "unpacked"))


def to(pod: Pod) -> RouteSpec:
    return route_spec(backend(ports=[pod.port]))


async def an_operator_comes(rig: Rig, pod: Pod) -> None:
    rig.make_plane()
    rig.set(to(pod))
    rig.plane.open()
    await rig.listen()


async def test_it_serves_what_was_known_last_by_the_services_and_then_asks_again(rig: Rig) -> None:
    pod, behind_service = await rig.pod("pod"), await rig.pod("behind-service")
    files = await known(rig, to(pod), behind_service)
    began = time.monotonic()
    async with started(rig, files, rig.xds_port) as router:
        await router.until_ready(15)
        print(f"served {time.monotonic() - began:.1f} s after its start")
        answer = await rig.ask()
        assert (answer.status, answer.body["pod"]) == (200, "behind-service")
        assert answer.headers["x-inflight-variant"] == "stable"
        async with rig.traffic() as seen:
            await an_operator_comes(rig, pod)
            await rig.until(lambda: seen["200 pod"] > 100, seconds=40)
            await asyncio.sleep(16)  # the Envoy with the files is gone by then
        assert set(seen) <= {"200 pod", "200 behind-service"}, seen
        assert rig.plane.routers == {"started"}
        assert await router.ready()


async def test_without_a_known_configuration_it_waits_and_is_not_ready(rig: Rig) -> None:
    """Seen failing with an empty configuration in the place of none: 404 for everybody."""
    async with started(rig, None, rig.xds_port) as router:
        await asyncio.sleep(PATIENCE + 2)
        assert not await router.ready()
        with pytest.raises(aiohttp.ClientConnectionError):
            await rig.ask()
        pod = await rig.pod("pod")
        await rig.start(to(pod))
        await router.until_ready(10)
        assert (await rig.ask()).status == 200


async def test_with_an_operator_the_files_are_not_looked_at(rig: Rig) -> None:
    pod, stale = await rig.pod("pod"), await rig.pod("stale")
    files = await known(rig, to(stale), stale)
    await an_operator_comes(rig, pod)
    async with started(rig, files, rig.xds_port) as router:
        await router.until_ready(10)
        assert (await rig.ask()).body["pod"] == "pod"
        assert not (router.directory / "unpacked").exists()


async def test_what_is_closed_and_encrypted_is_so_without_an_operator_too(rig: Rig) -> None:
    pod, issuer, trusted = await rig.pod("pod"), edge_tokens.Issuer(), rig.encrypt("digits.demo")
    access = (Issuer(issuer.name, ("inflight",), issuer.keys, ("system:serviceaccount:demo:*",)),)
    edge = {"secretName": "edge", "only": True}
    files = await known(rig, replace(to(pod), access=access), pod, edge=edge)
    async with started(rig, files, rig.xds_port) as router:
        await router.until_ready(15)
        seen = [
            (await rig.ask(ssl=trusted, server_hostname="digits.demo", headers=headers)).status
            for headers in ({}, {"Authorization": f"Bearer {issuer.token()}"})
        ]
        assert seen == [401, 200]
        with pytest.raises(aiohttp.ClientConnectionError):
            await rig.ask()


async def test_a_stopping_router_ends_whatever_it_serves(rig: Rig) -> None:
    pod = await rig.pod("pod")
    files = await known(rig, to(pod), pod)
    async with started(rig, files, rig.xds_port) as router:
        await router.until_ready(15)
        router.process.terminate()
        await asyncio.wait_for(router.process.wait(), 5)
