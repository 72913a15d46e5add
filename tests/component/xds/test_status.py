"""The router's status port: what Prometheus gets, how much of it, and that it is all that anybody gets."""

from __future__ import annotations

import pytest
from yarl import URL

from local_envoy import Envoy
from route_specs import backend, route_spec
from router_rig import Rig


async def told(rig: Rig, router: Envoy) -> list[str]:
    """Every series of a scrape."""
    async with rig.http.get(f"{router.status}/stats/prometheus") as answer:
        assert answer.status == 200
        return [line for line in (await answer.text()).splitlines() if line and not line.startswith("#")]


async def test_what_prometheus_gets_grows_by_a_dozen_series_with_each_model(rig: Rig) -> None:
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    router = await rig.router()
    await rig.ask("/v2/models/digits/infer", method="POST", json={})
    before = await told(rig, router)
    for number in range(20):
        model = f"model-{number}"
        key = rig.set(route_spec(backend(model=model, ports=[pod.port]), name=model))
        await rig.programmed(key)
        for path in ("/v2/models/m/infer", "/nowhere"):
            await rig.ask(path, host=f"{model}.demo", method="POST", json={})
    after = await told(rig, router)
    assert len(after) - len(before) <= 20 * 12
    labels = 'envoy_response_code_class="2",envoy_cluster_name="demo/model-7-stable-aaaa1111"'
    assert f"envoy_cluster_upstream_rq_xx{{{labels}}} 2" in after


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("GET", "/stats/prometheus?filter=.*", id="all of Envoy's statistics"),
        pytest.param("GET", "/stats/prometheus?format=text", id="any query"),
        pytest.param("POST", "/stats/prometheus", id="another method"),
        pytest.param("GET", "/stats", id="other statistics"),
        pytest.param("GET", "/config_dump", id="the configuration"),
        pytest.param("POST", "/quitquitquit", id="an end"),
        pytest.param("GET", "/stats/../config_dump", id="a way around"),
    ],
)
async def test_nothing_else_of_the_administration_is_to_be_had(rig: Rig, method: str, path: str) -> None:
    await rig.start()
    router = await rig.router()
    async with rig.http.request(method, URL(f"{router.status}{path}", encoded=True)) as answer:
        assert answer.status == 404
