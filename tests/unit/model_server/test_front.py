"""The whole server on a loopback port: paths, errors, request ids, refusals, draining."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from model_server.errors import Code, Problem
from model_server.models.base import Metadata
from model_server.rest import problems
from model_serving import DIGEST, JSON, NAME, VERSION, FakeModel, Gate, Server, request, serving, tensor, until


def assert_problem(response: httpx.Response, status: int, code: Code) -> dict[str, Any]:
    """RFC 9457 members, the protocol's `error` and a stable `code`; nothing of the server's inside."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["title"]
    assert body["error"] == body["detail"] != ""
    assert body["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    assert ".py" not in response.text
    return body


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2", {"name": "inflight-model-server", "version": "0.1.0", "extensions": ["binary_tensor_data"]}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/", {"status": "alive"}),
        (f"/v2/models/{NAME}/ready", {"name": NAME, "ready": True}),
        (f"/v2/models/{NAME}/versions/{VERSION}/ready", {"name": NAME, "ready": True}),
        ("/v1/models", {"models": [NAME]}),
        (f"/v1/models/{NAME}", {"name": NAME, "ready": True}),
    ],
)
async def test_the_management_paths_answer(path: str, body: Any) -> None:
    async with serving() as server:
        response = await server.http.get(path)
        assert (response.status_code, response.json()) == (200, body)


async def test_metadata_tells_tensors_version_and_digest() -> None:
    async with serving() as server:
        assert (await server.http.get(f"/v2/models/{NAME}")).json() == {
            "name": NAME,
            "versions": [VERSION],
            "platform": "test",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
            "parameters": {"sha256": DIGEST},
        }


@pytest.mark.parametrize("version", ["", f"/versions/{VERSION}"])
async def test_a_v2_request_is_answered(version: str) -> None:
    async with serving() as server:
        response = await server.http.post(f"/v2/models/{NAME}{version}/infer", json=request(id="7"))
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert response.json() == {
            "model_name": NAME,
            "model_version": VERSION,
            "id": "7",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 4.0]}],
        }


async def test_a_v1_request_is_answered() -> None:
    async with serving() as server:
        response = await server.http.post(f"/v1/models/{NAME}:predict", json={"instances": [[1, 2], [3, 4]]})
        assert response.json() == {"predictions": [[2.0, 4.0], [6.0, 8.0]]}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        pytest.param("GET", "/metrics", 404, Code.NOT_FOUND, id="metrics are on another port"),
        pytest.param("GET", "/docs", 404, Code.NOT_FOUND, id="no pages that load scripts from elsewhere"),
        pytest.param("POST", "/v2/models/other/infer", 404, Code.MODEL_NOT_FOUND, id="another model"),
        pytest.param("POST", f"/v2/models/{NAME}/versions/9/infer", 404, Code.MODEL_NOT_FOUND, id="another version"),
        pytest.param("POST", "/v1/models/other:predict", 404, Code.MODEL_NOT_FOUND, id="another model in V1"),
        pytest.param("GET", "/v2/models/other", 404, Code.MODEL_NOT_FOUND, id="metadata of another model"),
        pytest.param("GET", "/v2/models/other/ready", 404, Code.MODEL_NOT_FOUND, id="readiness of another model"),
        pytest.param("GET", "/v1/models/other", 404, Code.MODEL_NOT_FOUND, id="another model's state in V1"),
        pytest.param("GET", f"/v2/models/{NAME}/infer", 405, Code.METHOD_NOT_ALLOWED, id="GET of a prediction"),
        pytest.param("DELETE", "/v2/health/live", 405, Code.METHOD_NOT_ALLOWED, id="DELETE"),
        pytest.param("TRACE", "/v2", 405, Code.METHOD_NOT_ALLOWED, id="TRACE"),
        pytest.param("POST", f"/v2/models/{NAME}/infer/", 404, Code.NOT_FOUND, id="a slash at the end"),
        pytest.param("POST", f"/v2/models/%2e%2e%2f{NAME}/infer", 404, Code.NOT_FOUND, id="encoded dots"),
    ],
)
async def test_every_wrong_path_or_method_is_a_problem(method: str, path: str, status: int, code: Code) -> None:
    async with serving() as server:
        raw = server.http.base_url.copy_with(raw_path=path.encode())
        response = await server.http.request(method, raw, headers=JSON, content=b"{}")
        assert_problem(response, status, code)


async def test_unknown_models_are_all_answered_alike() -> None:
    async with serving() as server:
        answers = [(await server.http.get(f"/v2/models/{name}")).json()["detail"] for name in ("a", "b-secret")]
        assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("headers", "content", "status", "code"),
    [
        pytest.param({}, b'{"inputs":', 400, Code.INVALID_JSON, id="broken JSON"),
        pytest.param({}, b"{}", 422, Code.BAD_INPUT, id="no inputs"),
        pytest.param({"content-type": "text/plain"}, b"{}", 415, Code.UNSUPPORTED_MEDIA_TYPE, id="plain text"),
        pytest.param({"content-encoding": "gzip"}, b"\x1f\x8b", 400, Code.BAD_REQUEST, id="half a gzip"),
        pytest.param({"content-encoding": "br"}, b"", 415, Code.UNSUPPORTED_MEDIA_TYPE, id="brotli"),
        pytest.param({}, b" " * 100_001, 413, Code.TOO_LARGE, id="a body over the limit"),
        pytest.param({"x-request-timeout-ms": "0"}, b"{}", 504, Code.DEADLINE, id="a deadline in the past"),
        pytest.param({"x-request-timeout-ms": "x"}, b"{}", 400, Code.BAD_REQUEST, id="a deadline that is no number"),
    ],
)
async def test_every_bad_request_is_a_problem(headers: dict[str, str], content: bytes, status: int, code: Code) -> None:
    async with serving() as server:
        assert_problem(await server.infer(content, **headers), status, code)
        assert server.value("request_seconds_count", code=str(status)) == 1


async def test_json_without_a_content_type_is_taken() -> None:
    async with serving() as server:
        response = await server.http.post(f"/v2/models/{NAME}/infer", content=json.dumps(request()))
        assert response.status_code == 200


async def test_a_request_id_is_echoed_and_one_is_made_up_where_there_is_none() -> None:
    async with serving() as server:
        assert (await server.infer(request(), x_request_id="abc")).headers["x-request-id"] == "abc"
        assert (await server.http.get("/v2", headers={"x-request-id": "def"})).headers["x-request-id"] == "def"
        made_up = {(await server.infer(request())).headers["x-request-id"] for _ in range(3)}
        assert len(made_up) == 3


def failing(error: Exception) -> FakeModel:
    def fail(_inputs: Any) -> Any:
        raise error

    return FakeModel(function=fail)


async def test_a_failing_model_is_a_500_that_tells_nothing_of_the_inside(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(failing(RuntimeError("/secret/path.py exploded"))) as server:
        body = assert_problem(await server.infer(request(), x_request_id="r-9"), 500, Code.MODEL_ERROR)
        assert "secret" not in str(body)
    logged = capsys.readouterr()
    assert "exploded" in logged.out + logged.err


async def test_a_model_that_blames_the_input_is_a_422() -> None:
    async with serving(failing(Problem(Code.BAD_INPUT, "seven is too many"))) as server:
        assert "seven" in assert_problem(await server.infer(request()), 422, Code.BAD_INPUT)["detail"]


async def test_an_error_nobody_foresaw_is_a_500_without_a_traceback() -> None:
    class Broken(FakeModel):
        def predict(self, _inputs: Any) -> Any:
            return {"y": object()}  # no array: encoding it fails

    async with serving(Broken()) as server:
        assert_problem(await server.infer(request()), 500, Code.INTERNAL)


async def test_before_the_model_is_loaded_it_is_alive_but_not_ready() -> None:
    async with serving(loaded=False) as server:
        assert (await server.http.get("/v2/health/live")).status_code == 200
        for path in ("/v2/health/ready", f"/v2/models/{NAME}/ready", f"/v2/models/{NAME}"):
            response = await server.http.get(path)
            assert_problem(response, 503, Code.NOT_READY)
            assert response.headers["retry-after"] == "1"
        assert_problem(await server.infer(request()), 503, Code.NOT_READY)
        assert (await server.http.get(f"/v1/models/{NAME}")).json() == {"name": NAME, "ready": False}


async def test_while_draining_it_is_not_ready_but_answers_and_closes_connections() -> None:
    async with serving() as server:
        server.lifecycle.drain()
        assert_problem(await server.http.get("/v2/health/ready"), 503, Code.NOT_READY)
        response = await server.infer(request())
        assert response.status_code == 200
        assert response.headers["connection"] == "close"
        assert (await server.http.get("/v2/health/live")).headers["connection"] == "close"


async def hold_slot(server: Server, gate: Gate) -> asyncio.Task[httpx.Response]:
    holding = asyncio.create_task(server.infer(request()))
    await gate.wait_entered()
    return holding


async def test_a_full_queue_refuses_at_once_with_when_to_come_back() -> None:
    gate = Gate()
    async with serving(FakeModel(function=gate), max_queue=1) as server:
        running = await hold_slot(server, gate)
        queued = asyncio.create_task(server.infer(request()))
        await until(lambda: server.dispatcher.queue_depth == 1)
        refused = await server.infer(request())
        assert_problem(refused, 429, Code.QUEUE_FULL)
        assert int(refused.headers["retry-after"]) >= 1
        assert int(refused.headers["x-inflight-retry-after-ms"]) > 0
        gate.open.set()
        assert ((await running).status_code, (await queued).status_code) == (200, 200)
        assert server.value("shed_total", reason="queue_full") == 1
        assert (server.value("requests_in_flight"), server.value("queue_depth")) == (0, 0)


async def test_past_its_deadline_a_queued_request_is_answered_504_and_never_computed() -> None:
    gate, model = Gate(), FakeModel()
    model.function = gate
    async with serving(model) as server:
        running = await hold_slot(server, gate)
        assert_problem(await server.infer(request(), x_request_timeout_ms="30"), 504, Code.DEADLINE)
        gate.open.set()
        await running
        assert len(model.seen) == 1


async def test_a_running_prediction_past_its_deadline_is_answered_504_and_holds_its_slot() -> None:
    gate = Gate()
    async with serving(FakeModel(function=gate)) as server:
        assert_problem(await server.infer(request(), x_envoy_expected_rq_timeout_ms="30"), 504, Code.DEADLINE)
        assert server.value("requests_in_flight") == 1
        gate.open.set()
        await until(lambda: server.value("requests_in_flight") == 0)


async def test_with_every_slot_stuck_for_too_long_it_is_not_alive() -> None:
    gate = Gate()
    async with serving(FakeModel(function=gate), concurrency=2) as server:
        first = await hold_slot(server, gate)
        await asyncio.sleep(0.06)
        assert (await server.http.get("/v2/health/live")).status_code == 200, "one slot still works"
        second = await hold_slot(server, gate)
        await asyncio.sleep(0.06)
        assert_problem(await server.http.get("/v2/health/live"), 503, Code.NOT_READY)
        gate.open.set()
        await asyncio.gather(first, second)
        assert (await server.http.get("/v2/health/live")).status_code == 200


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_one_status_and_a_title(code: Code) -> None:
    answer = problems.answer(Problem(code, "why"), "r")
    body = orjson.loads(answer.body)
    assert answer.status == body["status"] == problems.STATUS[code]
    assert body["title"]
    assert body["code"] == code.value


@pytest.mark.parametrize(("milliseconds", "seconds"), [(1, "1"), (1000, "1"), (1001, "2"), (59_500, "60")])
def test_retry_after_is_whole_seconds_rounded_up(milliseconds: int, seconds: str) -> None:
    headers = dict(problems.answer(Problem(Code.QUEUE_FULL, "why", retry_after_ms=milliseconds), "r").headers)
    assert headers[b"retry-after"].decode() == seconds
    assert headers[b"x-inflight-retry-after-ms"] == b"%d" % milliseconds


def mutated(body: bytes, chance: random.Random) -> bytes:
    """`body` with a few bytes replaced, removed, doubled or moved."""
    data = bytearray(body)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        piece = chance.choice(
            [b"", b"[", b"]", b"{", b'"', b",", b"-", b"1e", b"null", b"true", b"\x00", b"9" * 40, b":"]
        )
        data[at : at + chance.randint(0, 3)] = piece
    return bytes(data)


@pytest.mark.parametrize("seed", range(4))
async def test_no_mutation_of_a_request_is_a_server_error(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - it is for a test
    good = orjson.dumps(request(tensor([[1, 2], [3, 4]], [2, 2]), id="7", outputs=[{"name": "y"}]))
    untold = FakeModel(metadata=Metadata("test"), function=lambda _inputs: {"y": np.zeros(1)})
    for model in (FakeModel(), untold):
        async with serving(model) as server:
            for _ in range(150):
                response = await server.infer(mutated(good, chance))
                assert response.status_code in (200, 400, 422), response.text
