"""Clients come encrypted: the listener with a certificate, on a real Envoy."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
import grpc
import pytest

from route_specs import backend, route_spec
from router_rig import Rig

NAME = "digits.demo.svc"
BOTH, ONLY = {"secretName": "edge"}, {"secretName": "edge", "only": True}


async def negotiated(rig: Rig, context: ssl.SSLContext) -> ssl.SSLObject:
    """A handshake as a client makes it."""
    _, writer = await asyncio.open_connection("127.0.0.1", rig.tls_port, ssl=context, server_hostname=NAME)
    found: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.close()
    return found


async def test_the_same_routes_are_served_with_and_without_encryption(rig: Rig) -> None:
    trusted = rig.encrypt(NAME)
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    await rig.router(edge=BOTH)
    for door in ({}, {"ssl": trusted, "server_hostname": NAME}):
        for path, host in (("/v2", NAME), ("/demo/digits/v2", "anything")):
            answer = await rig.ask(path, host, **door)
            assert (answer.status, answer.body["path"]) == (200, "/v2")
        assert (await rig.ask("/", "nobody.demo", **door)).body["code"] == "not_found"


async def test_with_tls_only_nothing_is_served_in_plain_text(rig: Rig) -> None:
    trusted = rig.encrypt(NAME)
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    router = await rig.router(edge=ONLY)
    assert (await rig.ask(host=NAME, ssl=trusted, server_hostname=NAME)).status == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await rig.ask(host=NAME)
    assert await router.ready()


async def test_a_router_without_a_certificate_is_told_of_no_listener_that_needs_one(rig: Rig) -> None:
    """As while a chart's upgrade turns TLS on: a refused listener would be withheld from the new routers too."""
    trusted = rig.encrypt(NAME)
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    await rig.router("old")
    assert (await rig.ask(host=NAME)).status == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await rig.ask(host=NAME, ssl=trusted, server_hostname=NAME)
    await rig.router("new", edge=ONLY)
    assert (await rig.ask(host=NAME, ssl=trusted, server_hostname=NAME)).status == 200


async def test_http_2_and_1_1_are_offered_and_old_versions_of_tls_are_not(rig: Rig) -> None:
    trusted = rig.encrypt(NAME)
    await rig.start(route_spec(backend()))
    await rig.router(edge=BOTH)
    for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1")):
        trusted.set_alpn_protocols(offered)
        found = await negotiated(rig, trusted)
        assert (found.selected_alpn_protocol(), found.version()) == (chosen, "TLSv1.3")
    trusted.maximum_version = ssl.TLSVersion.TLSv1_2
    assert (await negotiated(rig, trusted)).version() == "TLSv1.2"
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        trusted.minimum_version = trusted.maximum_version = ssl.TLSVersion.TLSv1_1
    trusted.set_ciphers("ALL:@SECLEVEL=0")  # or this client would not even ask
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        await negotiated(rig, trusted)


async def test_grpc_is_served_encrypted(rig: Rig) -> None:
    rig.encrypt(NAME)
    await rig.start(route_spec(backend()))
    await rig.router(edge=ONLY)
    trusted = grpc.ssl_channel_credentials((rig.directory / "edge" / "tls.crt").read_bytes())
    options = [("grpc.ssl_target_name_override", NAME), ("grpc.default_authority", "nobody.demo")]
    async with grpc.aio.secure_channel(f"127.0.0.1:{rig.tls_port}", trusted, options=options) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="not_found"):
            await channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=5)


async def test_a_renewed_certificate_is_shown_and_costs_no_request(rig: Rig) -> None:
    old = rig.encrypt(NAME)
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    await rig.router(edge=BOTH)

    async def renewed() -> bool:
        try:
            await negotiated(rig, new)
        except ssl.SSLCertVerificationError:
            return False
        return True

    async with rig.traffic(NAME, ssl=old, server_hostname=NAME) as seen:
        await rig.until(lambda: seen)
        new = rig.encrypt(NAME)
        await rig.eventually(renewed)
    assert set(seen) == {"200 pod"}
    with pytest.raises(ssl.SSLCertVerificationError):
        await negotiated(rig, old)


async def test_a_useless_certificate_leaves_the_last_one_in_force(rig: Rig) -> None:
    trusted = rig.encrypt(NAME)
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    router = await rig.router(edge=BOTH)
    folder = rig.directory / "edge" / "..bad"
    folder.mkdir()
    for file in ("tls.crt", "tls.key"):
        (folder / file).write_text("nonsense")
    (rig.directory / "edge" / "..new").symlink_to(folder.name)
    (rig.directory / "edge" / "..new").replace(rig.directory / "edge" / "..data")

    async def refused() -> bool:
        return (await router.stats("sds.edge.key_rotation_failed"))["sds.edge.key_rotation_failed"] == 1

    await rig.eventually(refused)
    assert (await rig.ask(host=NAME, ssl=trusted, server_hostname=NAME)).status == 200
