"""Tenants whose names read alike, in a real router: each is asked by host and by path, and answers alone."""

from __future__ import annotations

import pytest

from route_specs import backend, route_spec
from router_rig import Rig


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(("a-b", "c"), ("a", "b-c"), id="the-hyphen-elsewhere"),
        pytest.param(("a", "b"), ("b", "a"), id="the-other-way-round"),
        pytest.param(("a", "twin"), ("b", "twin"), id="the-same-name"),
        pytest.param(("a", "variants"), ("a-variants", "stable"), id="a-word-of-the-path"),
        pytest.param(("svc", "a"), ("a", "svc"), id="a-word-of-the-host"),
    ],
)
async def test_each_tenant_is_answered_by_its_own_pod(rig: Rig, one: tuple[str, str], other: tuple[str, str]) -> None:
    pods = {key: await rig.pod("/".join(key)) for key in (one, other)}
    specs = [
        route_spec(backend(ports=[pod.port], model=name), namespace=namespace, name=name)
        for (namespace, name), pod in pods.items()
    ]
    await rig.start(*specs)
    await rig.router()
    for namespace, name in pods:
        for host, path in (
            (f"{name}.{namespace}", "/v2"),
            (f"{name}.{namespace}.svc.cluster.local", "/v2"),
            ("anything", f"/{namespace}/{name}/v2"),
            ("anything", f"/{namespace}/{name}/variants/stable/v2"),
        ):
            answer = await rig.ask(path, host)
            assert (answer.status, answer.body["pod"], answer.body["path"]) == (200, f"{namespace}/{name}", "/v2")
