"""The API's description against the API: no path more, none less, and its examples are answered."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.routing import APIRoute
from jsonschema import Draft202012Validator

from model_server.errors import Code
from model_server.lifecycle import Lifecycle
from model_server.models.base import Metadata
from model_server.models.tensors import TensorSpec
from model_server.rest import infer, management, openapi
from model_serving import NAME, VERSION, FakeModel, Server, serving, spec

ALWAYS_POSSIBLE = {Code.NOT_FOUND, Code.METHOD_NOT_ALLOWED, Code.CANCELLED}
"""No operation's own answer: another path, another method, nobody there to read it."""


def answers(*inputs: TensorSpec) -> FakeModel:
    """A model of these inputs that answers one zero."""
    return FakeModel(Metadata("test", inputs), lambda _: {"y": np.zeros(1, np.float32)})


async def described(server: Server) -> dict[str, Any]:
    document: dict[str, Any] = (await server.http.get("/openapi.json")).json()
    return document


def test_every_route_is_described_and_nothing_else() -> None:
    paths = set(openapi.document(Lifecycle(NAME))["paths"])
    predictions = {path for path in paths if infer.target(path.replace("{", "").replace("}", "").encode())}
    routes = {r.path for r in management.build(Lifecycle(NAME)).routes if isinstance(r, APIRoute)}
    assert len(predictions) == 3
    assert paths - predictions == routes - {"/openapi.json"}


def test_every_way_in_which_a_prediction_can_fail_is_described() -> None:
    responses = openapi.document(Lifecycle(NAME))["paths"]["/v2/models/{name}/infer"]["post"]["responses"]
    told = " ".join(response["description"] for response in responses.values())
    assert {code for code in Code if f"`{code.value}`" not in told} == ALWAYS_POSSIBLE


@pytest.mark.parametrize("name", openapi.document(Lifecycle(NAME))["components"]["schemas"])
def test_every_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(openapi.document(Lifecycle(NAME))["components"]["schemas"][name])


async def test_only_the_served_model_is_offered() -> None:
    async with serving() as server:
        parameters = (await described(server))["paths"]["/v2/models/{name}/versions/{version}/infer"]["parameters"]
    assert [parameter["schema"]["enum"] for parameter in parameters] == [[NAME], [VERSION]]


async def test_before_the_model_is_loaded_no_version_and_no_example_are_told() -> None:
    async with serving(loaded=False) as server:
        paths = (await described(server))["paths"]
    assert "enum" not in paths["/v2/models/{name}/versions/{version}"]["parameters"][1]["schema"]
    assert "example" not in paths["/v2/models/{name}/infer"]["post"]["requestBody"]["content"]["application/json"]


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param([spec("x", "FP32", -1, 2)], id="rows-of-numbers"),
        pytest.param([spec("x", "BYTES", -1)], id="strings"),
        pytest.param([spec("x", "BOOL", 2, 2, 2)], id="fixed-shape"),
        pytest.param([spec("x", "UINT8", -1), spec("y", "FP64", -1, -1)], id="two-inputs"),
    ],
)
async def test_the_examples_are_answered(inputs: list[TensorSpec]) -> None:
    async with serving(answers(*inputs)) as server:
        paths = (await described(server))["paths"]
        for path, operations in paths.items():
            content = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
            if "example" not in content:
                continue
            url = path.replace("{name}", NAME).replace("{version}", VERSION)
            answer: httpx.Response = await server.http.post(url, json=content["example"])
            assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "inputs", [pytest.param([], id="undeclared"), pytest.param([spec("x", "FP32", 10**6)], id="too-large-to-read")]
)
async def test_there_is_no_example_where_none_can_be_made(inputs: list[TensorSpec]) -> None:
    async with serving(answers(*inputs)) as server:
        posts = [
            operations["post"] for operations in (await described(server))["paths"].values() if "post" in operations
        ]
    assert not any("example" in post["requestBody"]["content"]["application/json"] for post in posts)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", f"/v2/models/{NAME}/infer", "POST"),
        ("TRACE", f"/v1/models/{NAME}:predict", "POST"),
        ("POST", f"/v2/models/{NAME}", "GET"),
        ("DELETE", "/v2/health/live", "GET"),
    ],
)
async def test_another_method_is_told_which_one_is_allowed(method: str, path: str, allowed: str) -> None:
    async with serving() as server:
        answer = await server.http.request(method, path)
    assert (answer.status_code, answer.headers["allow"], answer.json()["code"]) == (405, allowed, "method_not_allowed")
