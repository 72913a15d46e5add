"""Whatever bytes come: a prediction or a typed refusal, in both protocols and both forms, and never a 5xx."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_server.errors import Problem
from model_server.models.base import Metadata
from model_server.models.tensors import DATATYPES
from model_server.rest import v1, v2
from model_server.rest.problems import STATUS
from model_serving import NAME, FakeModel, Server, request, serving, spec, tensor

DECLARED = Metadata("test", (spec("x", "FP32", -1, 2), spec("t", "BYTES", -1)))
MODELS = [Metadata("python"), FakeModel().metadata, DECLARED]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
parameters = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "classification", "other"]),
    json_values | st.integers(0, 20),
    max_size=3,
)


def objects(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with some of the members, each of them now and then something else altogether."""
    return st.fixed_dictionaries({}, optional={name: value | json_values for name, value in members.items()})


v2_tensors = objects(
    name=st.sampled_from(["x", "t", ""]),
    datatype=st.sampled_from([*DATATYPES, "BF16"]),
    shape=st.lists(st.integers(-1, 4) | st.integers(2**31, 2**63), max_size=4),
    data=st.lists(json_values, max_size=8),
    parameters=parameters,
)
v2_requests = objects(
    id=st.text(max_size=3),
    parameters=parameters,
    inputs=st.lists(v2_tensors | json_values, min_size=1, max_size=3),
    outputs=st.lists(objects(name=st.sampled_from(["y", "z"]), parameters=parameters), max_size=3),
)
base64 = st.fixed_dictionaries({"b64": st.sampled_from(["", "AA==", "!"]) | json_values})
v1_requests = objects(
    instances=st.lists(json_values | objects(x=json_values, t=base64 | st.text(max_size=3)) | base64, max_size=4),
    inputs=objects(x=st.lists(json_values, max_size=4), t=st.lists(base64 | st.text(max_size=3), max_size=3)),
)


def refused_at_most(decode: Any, *arguments: Any) -> None:
    refused = None
    try:
        decode(*arguments)
    except Problem as problem:
        refused = problem
    assert refused is None or (400 <= STATUS[refused.code] < 500 and len(refused.detail) < 1000)


@given(v2_requests, st.binary(max_size=40), st.sampled_from(MODELS), st.integers(-3, 3))
@settings(max_examples=120, deadline=None)
def test_made_up_v2_requests(body: Any, tail: bytes, metadata: Metadata, lie: int) -> None:
    json = orjson.dumps(body)
    refused_at_most(v2.decode, json, metadata)
    refused_at_most(v2.decode, json + tail, metadata, max(0, len(json) + lie))
    refused_at_most(v2.decode, bytearray(json + tail), metadata, len(json))


@given(v1_requests, st.sampled_from(MODELS))
@settings(max_examples=100, deadline=None)
def test_made_up_v1_requests(body: Any, metadata: Metadata) -> None:
    refused_at_most(v1.decode, orjson.dumps(body), metadata)


@given(st.binary(max_size=60), st.sampled_from(MODELS), st.integers(0, 70))
@settings(max_examples=100, deadline=None)
def test_any_bytes(body: bytes, metadata: Metadata, json_length: int) -> None:
    refused_at_most(v2.decode, body, metadata)
    refused_at_most(v2.decode, body, metadata, json_length)
    refused_at_most(v1.decode, body, metadata)


@pytest.mark.parametrize("depth", [40, 900, 1020])
def test_data_nested_as_deeply_as_json_may_be(depth: int) -> None:
    """Deeper than Python recurses, so the refusal may not recurse either."""
    nested = "[" * (depth - 5) + "]" * (depth - 5)
    for data in (
        request(tensor("?", [1, 2])),
        request(tensor(["?", 1], [1, 2])),
        request(id="?"),
        request(outputs="?"),
    ):
        with pytest.raises(Problem, match=r"^(?!.*no valid JSON)"):
            v2.decode(orjson.dumps(data).replace(b'"?"', nested.encode()), MODELS[1])
    for rows in ({"instances": "?"}, {"instances": [{"b64": "?"}]}, {"inputs": {"x": ["?", {"b64": ""}]}}):
        with pytest.raises(Problem, match=r"^(?!.*no valid JSON)"):
            v1.decode(orjson.dumps(rows).replace(b'"?"', nested.encode()), MODELS[1])


def test_as_many_inputs_as_a_body_has_room_for_are_refused_before_they_are_looked_at() -> None:
    body = request(*[tensor([1], [1], name=f"x{i}") for i in range(v2.MAX_INPUTS + 1)])
    with pytest.raises(Problem, match="1025 tensors, at most 1024"):
        v2.decode(orjson.dumps(body), MODELS[0])


ROW = np.array([[1, 2]], np.float32).tobytes()
RAW_JSON = orjson.dumps(
    {
        "parameters": {"binary_data_output": True},
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": len(ROW)}},
        ],
    }
)
SOUND: dict[str, tuple[str, dict[str, str], bytes]] = {
    "V2": (f"/v2/models/{NAME}/infer", {}, orjson.dumps(request())),
    "V2, raw": (
        f"/v2/models/{NAME}/infer",
        {"inference-header-content-length": str(len(RAW_JSON)), "content-type": "application/octet-stream"},
        RAW_JSON + ROW,
    ),
    "V1": (f"/v1/models/{NAME}:predict", {}, b'{"instances": [[1.0, 2.0]]}'),
    "V1, columns": (f"/v1/models/{NAME}:predict", {}, b'{"inputs": {"x": [[1.0, 2.0]]}}'),
}


def damaged(rng: random.Random, body: bytes) -> bytes:
    """`body` with a few bytes changed, dropped, doubled or swapped for some that mean something to JSON."""
    data = bytearray(body)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data)) if data else 0
        piece = rng.choice(
            [b"", b"\xff", b"[", b'"', b"9" * 30, b"-", b"null", b"true", b"{}", b"\x00", rng.randbytes(2)]
        )
        data[at : at + rng.randint(0, 3)] = piece
    return bytes(data)


@pytest.mark.parametrize("form", SOUND)
async def test_damaged_requests_over_a_connection(form: str) -> None:
    path, headers, body = SOUND[form]
    rng = random.Random(form)  # noqa: S311
    async with serving(max_queue=64) as server:
        sound = await server.http.post(path, headers=headers, content=body)
        statuses = [await _status(server, path, headers, damaged(rng, body)) for _ in range(60)]
        again = await server.http.post(path, headers=headers, content=body)
    assert (sound.status_code, again.content) == (200, sound.content)
    assert set(statuses) <= {200, 400, 422}
    assert {400, 422} <= set(statuses)


async def _status(server: Server, path: str, headers: dict[str, str], body: bytes) -> int:
    answer = await server.http.post(path, headers=headers, content=body)
    if answer.status_code != 200:
        assert answer.json()["detail"]
    return answer.status_code
