"""A router that leaves (its preStop hook), and certificates between routers and operator."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

import grpc
import pytest

from inflight_operator.xds.plane import serve
from local_envoy import CHART_FILES, ENVOY, envoy, rendered_text
from route_specs import backend, route_spec
from router_rig import Rig

KEY = ("demo", "digits")
DRAIN = CHART_FILES / "drain.sh"


async def drain(admin_port: int, seconds: int, forget: float) -> asyncio.subprocess.Process:
    environment = {
        **os.environ,
        "INFLIGHT_ADMIN_PORT": str(admin_port),
        "INFLIGHT_FORGET_SECONDS": str(forget),
    }
    return await asyncio.create_subprocess_exec("bash", str(DRAIN), str(seconds), env=environment)


async def test_draining_fails_readiness_serves_on_and_waits_for_open_requests(rig: Rig) -> None:
    pod = await rig.pod(delay=1.5)
    await rig.start(route_spec(backend(ports=[pod.port])))
    router = await rig.router()
    long = asyncio.create_task(rig.ask())
    await pod.arrived.wait()
    began = time.monotonic()
    hook = await drain(router.admin_port, 20, forget=0.3)
    while await router.ready():  # noqa: ASYNC110 - it is another process
        await asyncio.sleep(0.02)
    pod.delay = 0
    late = await rig.ask()  # from a client that has not heard yet
    assert late.status == 200
    assert late.headers["connection"] == "close"
    assert await hook.wait() == 0
    assert time.monotonic() - began >= 1.0
    assert long.done()
    assert (await long).status == 200


async def test_draining_does_not_wait_for_ever(rig: Rig) -> None:
    pod = await rig.pod(delay=30)
    await rig.start(route_spec(backend(ports=[pod.port], timeout=60_000)))
    router = await rig.router()
    long = asyncio.create_task(rig.ask())
    await pod.arrived.wait()
    began = time.monotonic()
    hook = await drain(router.admin_port, 2, forget=0.1)
    assert await hook.wait() == 0
    assert 1 <= time.monotonic() - began < 4
    long.cancel()


async def test_draining_without_envoy_is_over_at_once() -> None:
    hook = await drain(1, 20, forget=10)
    async with asyncio.timeout(3):
        assert await hook.wait() == 0


def openssl(*arguments: str, directory: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def certificates(directory: Path, subject: str) -> None:
    """An authority, and a certificate of it for `subject`, as the chart's Secret has them."""
    directory.mkdir()
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt", directory=directory)
    sign = ("-CA", "ca.crt", "-CAkey", "ca.key", "-addext", f"subjectAltName=DNS:{subject}")
    openssl(
        *("req", "-x509", *key, "-subj", "/CN=x", *sign, "-keyout", "tls.key", "-out", "tls.crt"), directory=directory
    )


async def test_routers_and_operator_know_each_other_by_certificate(rig: Rig, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    certificates(right, "inflight-operator.inflight-system.svc")
    certificates(wrong, "inflight-operator.inflight-system.svc")
    rig.make_plane()
    rig.set(route_spec(backend()))
    rig.plane.open()
    server = await serve(rig.plane, rig.xds_port, right, host="127.0.0.1")
    rig.stack.push_async_callback(server.stop)
    await rig.router("known", tls=right)
    assert rig.plane.routers == {"known"}

    stranger = await rig.router("stranger", tls=wrong, ready=False)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.xds_port}") as plain:
        call = plain.stream_stream("/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")()
        with pytest.raises(grpc.aio.AioRpcError):  # noqa: PT012 - whichever notices first
            await call.write(b"")
            await asyncio.wait_for(call.read(), 5)
    await asyncio.sleep(1)
    assert rig.plane.routers == {"known"}
    assert not await stranger.ready()


async def test_renewed_certificates_are_taken_up_without_a_restart(rig: Rig, tmp_path: Path) -> None:
    """A Secret's mount: a link that is moved to a new folder."""
    for name in ("old", "new"):
        certificates(tmp_path / name, "inflight-operator.inflight-system.svc")
    mount = tmp_path / "tls"
    mount.mkdir()
    (mount / "..data").symlink_to(tmp_path / "old")
    for name in ("ca.crt", "tls.crt", "tls.key"):
        (mount / name).symlink_to(Path("..data") / name)
    rig.make_plane()
    rig.set(route_spec(backend()))
    rig.plane.open()
    server = await serve(rig.plane, rig.xds_port, mount, host="127.0.0.1")
    rig.stack.push_async_callback(server.stop)
    old = await rig.router("old", tls=mount)
    (mount / "..next").symlink_to(tmp_path / "new")
    (mount / "..next").rename(mount / "..data")
    await asyncio.sleep(0.5)
    await rig.router("new", tls=mount)
    assert rig.plane.routers == {"old", "new"}
    assert "new" not in old.log.read_text()


async def test_an_operator_with_another_name_is_not_believed(rig: Rig, tmp_path: Path) -> None:
    tls = tmp_path / "tls"
    certificates(tls, "somebody-else.inflight-system.svc")
    rig.make_plane()
    rig.plane.open()
    server = await serve(rig.plane, rig.xds_port, tls, host="127.0.0.1")
    rig.stack.push_async_callback(server.stop)
    async with envoy(rig.directory / "router", rig.xds_port, tls=tls) as router:
        await asyncio.sleep(1.5)
        assert rig.plane.routers == frozenset()
        assert not await router.ready()


async def test_envoy_reads_the_bootstrap_as_the_chart_renders_it(tmp_path: Path) -> None:
    """As text: what Envoy's own YAML reader makes of it."""
    tls = tmp_path / "tls"
    certificates(tls, "inflight-operator.inflight-system.svc")
    for name in ("bootstrap.yaml", "sds-certificate.yaml", "sds-validation.yaml"):
        text = rendered_text(name).replace("/etc/inflight/tls", str(tls)).replace("/etc/inflight", str(tmp_path))
        (tmp_path / name).write_text(text)
    process = await asyncio.create_subprocess_exec(
        *(
            ENVOY,
            "--mode",
            "validate",
            "-c",
            str(tmp_path / "bootstrap.yaml"),
            "--service-node",
            "a",
            "--service-cluster",
            "b",
        ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert b"eprecated" not in output
