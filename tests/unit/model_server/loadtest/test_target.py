from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from model_server.loadtest import asking, target
from model_server.loadtest.plan import LoadTestError
from model_server.loadtest.target import Target

ROW = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}


@pytest.fixture
async def metadata() -> AsyncIterator[dict[str, Any]]:
    """What a server answers to GET PATH; its base is under "base"."""
    answers: dict[str, Any] = {}

    async def answer(request: web.Request) -> web.Response:
        found = answers.get(request.path)
        return web.json_response(found, status=404 if found is None else 200)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        answers["base"] = str(server.make_url("")).rstrip("/")
        yield answers


async def prepare(url: str, body: str | None = None, deadline: int | None = 2000, **headers: str) -> Target:
    async with asking.session() as http:
        return await target.prepare(http, URL(url), body, headers, deadline)


@pytest.mark.parametrize(
    ("path", "asked", "read"),
    [
        ("/v2/models/m", "/v2/models/m/infer", "/v2/models/m"),
        ("/v2/models/m/", "/v2/models/m/infer", "/v2/models/m"),
        ("/v2/models/m/infer", "/v2/models/m/infer", "/v2/models/m"),
        ("/v2/models/m/versions/7/infer", "/v2/models/m/versions/7/infer", "/v2/models/m/versions/7"),
        ("/demo/m/v2/models/m/infer", "/demo/m/v2/models/m/infer", "/demo/m/v2/models/m"),
    ],
)
async def test_a_v2_url_is_asked_one_row_of_zeros(metadata: dict[str, Any], path: str, asked: str, read: str) -> None:
    metadata[read] = {"inputs": [ROW]}
    found = await prepare(metadata["base"] + path)
    assert (found.method, found.url.path, found.member) == ("POST", asked, b'"outputs"')
    assert json.loads(found.body or b"") == {"inputs": [{**ROW, "shape": [1, 3], "data": [0.0, 0.0, 0.0]}]}


@pytest.mark.parametrize("path", ["/v1/models/m", "/v1/models/m:predict"])
async def test_a_v1_url_is_asked_nested_instances(metadata: dict[str, Any], path: str) -> None:
    metadata["/v2/models/m"] = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [-1, 2, 2]}]}
    found = await prepare(metadata["base"] + path)
    assert (found.url.path, found.member) == ("/v1/models/m:predict", b'"predictions"')
    assert json.loads(found.body or b"") == {"instances": [[[0, 0], [0, 0]]]}


async def test_prediction_urls_are_told_the_deadline_unless_not_wanted(metadata: dict[str, Any]) -> None:
    url = metadata["base"] + "/v2/models/m"
    assert (await prepare(url, "{}")).headers["x-request-timeout-ms"] == "2000"
    assert "x-request-timeout-ms" not in (await prepare(url, "{}", None)).headers
    assert "x-request-timeout-ms" not in (await prepare(metadata["base"] + "/predict", "{}")).headers


async def test_any_other_url_is_got_or_posted_a_body() -> None:
    got, posted = await prepare("http://server/health"), await prepare("http://server/predict", '{"x": 1}')
    assert (got.method, got.body, dict(got.headers)) == ("GET", None, {})
    assert (posted.method, posted.body) == ("POST", b'{"x": 1}')
    assert posted.headers == {"content-type": "application/json"}


async def test_a_body_may_lie_in_a_file_and_its_type_is_told(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"\x89PNG")
    found = await prepare("http://server/predict", str(tmp_path / "image"))
    assert (found.body, found.headers["content-type"]) == (b"\x89PNG", "application/octet-stream")
    given = await prepare("http://server/predict", str(tmp_path / "image"), **{"content-type": "image/png"})
    assert given.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("answered", "reason"),
    [
        pytest.param(None, "answers 404", id="no-such-model"),
        pytest.param({"inputs": []}, "doesn't say what its inputs are", id="no-inputs"),
        pytest.param({"hello": "world"}, "no V2 metadata", id="something-else"),
        pytest.param({"inputs": [{"name": "x"}]}, "no V2 metadata", id="half-an-input"),
        pytest.param({"inputs": [{**ROW, "shape": [10**9, 10**9]}]}, "elements; give --body", id="huge"),
    ],
)
async def test_without_metadata_the_error_says_what_to_do(metadata: dict[str, Any], answered: Any, reason: str) -> None:
    if answered is not None:
        metadata["/v2/models/m"] = answered
    with pytest.raises(LoadTestError, match=reason) as failed:
        await prepare(metadata["base"] + "/v2/models/m")
    assert "--body" in str(failed.value)


async def test_a_model_that_is_not_ready_is_told() -> None:
    async def loading(_: web.Request) -> web.Response:
        return web.Response(status=503)

    app = web.Application()
    app.router.add_get("/v2/models/m", loading)
    async with TestServer(app) as server:
        with pytest.raises(LoadTestError, match="isn't ready yet"):
            await prepare(str(server.make_url("/v2/models/m")))


async def test_a_body_that_is_neither_json_nor_a_file_is_told() -> None:
    with pytest.raises(LoadTestError, match=r"can't read nothing\.json"):
        await prepare("http://server/", "nothing.json")


@pytest.mark.parametrize(
    ("datatype", "zero"), [("BYTES", ""), ("BOOL", False), ("FP16", 0.0), ("FP64", 0.0), ("UINT8", 0), ("INT64", 0)]
)
def test_zeros_are_of_the_inputs_datatype(datatype: str, zero: Any) -> None:
    (tensor,) = json.loads(target.example([{"name": "x", "datatype": datatype, "shape": [-1]}]))["inputs"]
    assert tensor["data"] == [zero]
    assert type(tensor["data"][0]) is type(zero)


def test_v1_can_not_ask_a_model_of_two_inputs() -> None:
    with pytest.raises(LoadTestError, match="several inputs"):
        target.example([ROW, {**ROW, "name": "y"}], v1=True)
