"""gRPC: the same queue, deadlines and refusals as over HTTP, told in gRPC's words."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest
import structlog

from model_grpc import answered, grpc_serving, request
from model_server import logs
from model_server.grpc_api.messages import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveResponse,
    ServerMetadataResponse,
    ServerReadyResponse,
)
from model_serving import NAME, VERSION, FakeModel, ManualExecutor, until

Status = grpc.StatusCode


def trailers(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    return dict(error.trailing_metadata())


async def test_health_and_metadata_are_those_of_the_served_model() -> None:
    async with grpc_serving() as server:
        assert ServerLiveResponse.FromString(await server.call("ServerLive")).live
        assert ServerReadyResponse.FromString(await server.call("ServerReady")).ready
        asked = ModelReadyRequest(name=NAME)
        assert ModelReadyResponse.FromString(await server.call("ModelReady", asked)).ready
        about = ServerMetadataResponse.FromString(await server.call("ServerMetadata"))
        assert about.name == "inflight-model-server"
        body = await server.call("ModelMetadata", ModelMetadataRequest(name=NAME, version=VERSION))
        model = ModelMetadataResponse.FromString(body)
        assert (model.name, list(model.versions), model.platform) == (NAME, [VERSION], "test")
        (taken,) = model.inputs
        assert (taken.name, taken.datatype, list(taken.shape)) == ("x", "FP32", [-1, 2])
        server.lifecycle.drain()
        assert not ServerReadyResponse.FromString(await server.call("ServerReady")).ready


@pytest.mark.parametrize("raw", [True, False])
async def test_tensors_are_answered_as_they_came(raw: bool) -> None:
    async with grpc_serving() as server:
        answer = ModelInferResponse.FromString(await server.infer(request([1, 2, 3, 4], raw=raw, id="one")))
        assert (answer.model_name, answer.model_version, answer.id) == (NAME, VERSION, "one")
        (output,) = answer.outputs
        assert (output.name, output.datatype, list(output.shape)) == ("y", "FP32", [2, 2])
        assert len(answer.raw_output_contents) == int(raw)
        assert list(output.contents.fp32_contents) == ([] if raw else [2, 4, 6, 8])


NO_MODEL = ModelInferRequest(model_name="other", inputs=request().inputs)


@pytest.mark.parametrize(
    ("message", "status", "code", "says"),
    [
        pytest.param(request([1, 2, 3, 4, 5, 6], raw=False), None, "", "", id="the limit of what is good"),
        pytest.param(NO_MODEL, Status.NOT_FOUND, "model_not_found", "no such model", id="model"),
        pytest.param(request(model_version="9"), Status.NOT_FOUND, "model_not_found", "version", id="version"),
        pytest.param(b"\xff", Status.INVALID_ARGUMENT, "bad_request", "ModelInferRequest", id="no message"),
        pytest.param(
            ModelInferRequest(model_name=NAME), Status.INVALID_ARGUMENT, "bad_input", "at least one", id="no input"
        ),
        pytest.param(
            request(outputs=[{"name": "z"}]), Status.INVALID_ARGUMENT, "bad_input", "no output 'z'", id="output"
        ),
    ],
)
async def test_what_is_wrong_with_a_request_is_told_precisely(
    message: Any, status: grpc.StatusCode | None, code: str, says: str
) -> None:
    async with grpc_serving() as server:
        if status is None:
            assert await server.infer(message)
            return
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.infer(message)
        error = refused.value
        assert (error.code(), trailers(error)["x-inflight-code"]) == (status, code)
        assert says in (error.details() or "")


async def test_a_message_over_the_limit_is_not_read() -> None:
    async with grpc_serving(max_body_bytes=1000) as server:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.infer(request([1.0] * 400))
        assert refused.value.code() is Status.RESOURCE_EXHAUSTED
        assert server.dispatcher.in_flight == 0


async def test_the_clients_request_id_comes_back_and_one_is_made_where_there_is_none() -> None:
    async with grpc_serving() as server:
        call = server.infer(metadata=(("x-request-id", "r-1"),))
        await call
        assert ("x-request-id", "r-1") in tuple(await call.trailing_metadata())
        call = server.infer()
        await call
        assert len(dict(await call.trailing_metadata())["x-request-id"]) == 32


async def test_a_full_queue_is_refused_with_when_to_come_back() -> None:
    executor = ManualExecutor()
    async with grpc_serving(executor=executor, max_queue=1) as server:
        admitted = [asyncio.ensure_future(server.infer()) for _ in range(2)]
        await until(lambda: server.dispatcher.in_flight == 2)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.infer()
        error = refused.value
        assert error.code() is Status.RESOURCE_EXHAUSTED
        assert trailers(error)["x-inflight-code"] == "queue_full"
        assert int(trailers(error)["x-inflight-retry-after-ms"]) > 0
        assert server.value("request_seconds_count", code="429") == 1
        for _ in admitted:
            await until(lambda: bool(executor.pending))
            executor.finish()
        assert all(map(answer_of, await asyncio.gather(*admitted)))
        assert server.dispatcher.in_flight == 0


def answer_of(body: bytes) -> list[str]:
    """Names of the outputs."""
    return [output.name for output in ModelInferResponse.FromString(body).outputs]


async def test_a_high_priority_takes_the_place_of_a_lower_one() -> None:
    executor = ManualExecutor()
    async with grpc_serving(executor=executor, max_queue=1) as server:
        running = asyncio.ensure_future(server.infer())
        await until(lambda: len(executor.pending) == 1)
        low = asyncio.ensure_future(server.infer(metadata=(("x-priority", "low"),)))
        await until(lambda: server.dispatcher.queue_depth == 1)
        high = asyncio.ensure_future(server.infer(metadata=(("x-priority", "high"),)))
        with pytest.raises(grpc.aio.AioRpcError) as displaced:
            await low
        assert displaced.value.code() is Status.RESOURCE_EXHAUSTED
        for future in (running, high):
            await until(lambda: bool(executor.pending))
            executor.finish()
            assert answer_of(await future)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"timeout": 0.1}, id="the call's deadline"),
        pytest.param({"metadata": (("x-request-timeout-ms", "100"),)}, id="the header"),
        pytest.param({"metadata": (("x-inflight-timeout-ms", "100"),), "timeout": 9}, id="the ModelDeployment's limit"),
        pytest.param({"metadata": (("x-envoy-expected-rq-timeout-ms", "100"),)}, id="the router's patience"),
    ],
)
async def test_a_deadline_that_passes_in_the_queue_is_never_computed(options: dict[str, Any]) -> None:
    executor = ManualExecutor()
    async with grpc_serving(executor=executor) as server:
        running = asyncio.ensure_future(server.infer())
        await until(lambda: len(executor.pending) == 1)
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await server.infer(**options)
        assert late.value.code() is Status.DEADLINE_EXCEEDED
        await until(lambda: server.dispatcher.in_flight == 1)
        await until(lambda: server.value("request_seconds_count", code="504") == 1)
        assert server.value("cancelled_total") == 0
        executor.finish()
        await running
        assert executor.pending == []


async def test_a_deadline_that_grpc_sees_first_is_no_departure(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = ManualExecutor()
    async with grpc_serving(executor=executor) as server:
        monkeypatch.setattr(server.dispatcher, "_expire", lambda _ticket: None)
        running = asyncio.ensure_future(server.infer())
        await until(lambda: len(executor.pending) == 1)
        with pytest.raises(grpc.aio.AioRpcError):
            await server.infer(timeout=0.1)
        await until(lambda: server.dispatcher.in_flight == 1)
        assert server.value("request_seconds_count", code="504") == 1
        assert server.value("cancelled_total") == 0
        executor.finish()
        await running


async def test_the_servers_timeout_is_the_most_that_a_call_gets() -> None:
    async with grpc_serving(executor=ManualExecutor(), timeout_seconds=0.05) as server:
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await server.infer(timeout=30)
        assert late.value.code() is Status.DEADLINE_EXCEEDED
        assert "while the model was computing" in (late.value.details() or "")


async def test_a_client_that_cancels_in_the_queue_is_never_computed_and_counted_as_gone() -> None:
    executor = ManualExecutor()
    async with grpc_serving(executor=executor) as server:
        running = asyncio.ensure_future(server.infer())
        await until(lambda: len(executor.pending) == 1)
        leaving = server.infer()
        await until(lambda: server.dispatcher.queue_depth == 1)
        leaving.cancel()
        await until(lambda: server.dispatcher.queue_depth == 0)
        await until(lambda: server.value("cancelled_total") == 1)
        assert server.value("request_seconds_count", code="499") == 1
        executor.finish()
        await running
        assert executor.pending == []
        assert server.dispatcher.in_flight == 0


async def test_a_model_that_fails_is_told_to_the_client_without_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_inputs: Any) -> Any:
        raise RuntimeError("secret")

    logs.configure("info")
    try:
        async with grpc_serving(FakeModel(function=fail)) as server:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await server.infer(metadata=(("x-request-id", "r-7"),))
    finally:
        structlog.reset_defaults()
    assert (failed.value.code(), trailers(failed.value)["x-inflight-code"]) == (Status.INTERNAL, "model_error")
    assert "secret" not in (failed.value.details() or "")
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["event"], line["error"], line["request_id"]) == ("prediction failed", "secret", "r-7")


async def test_before_the_model_is_loaded_it_is_unavailable_and_says_when_to_come_back() -> None:
    async with grpc_serving(loaded=False) as server:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.infer()
        assert refused.value.code() is Status.UNAVAILABLE
        assert trailers(refused.value)["x-inflight-retry-after-ms"] == "1000"


async def test_a_stop_lets_what_runs_end_and_takes_no_more() -> None:
    executor = ManualExecutor()
    async with grpc_serving(executor=executor) as server:
        running = asyncio.ensure_future(server.infer())
        await until(lambda: len(executor.pending) == 1)
        stopping = asyncio.create_task(server.running.stop(5))
        await asyncio.sleep(0.05)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.infer(timeout=0.5)
        assert refused.value.code() in (Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED)
        executor.finish()
        assert answer_of(await running) == ["x"]
        await stopping


async def test_other_servers_extensions_are_unimplemented() -> None:
    async with grpc_serving() as server:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.call("RepositoryIndex")
        assert refused.value.code() is Status.UNIMPLEMENTED


async def test_a_prediction_is_the_models() -> None:
    async with grpc_serving() as server:
        assert answered(await server.infer(request([1, 2, 3, 4]))) == [2, 4, 6, 8]
        assert server.value("request_seconds_count", code="200") == 1
