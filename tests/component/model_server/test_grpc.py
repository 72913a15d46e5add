"""gRPC of a real server process, asked by the client that everybody uses."""

from __future__ import annotations

import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import TensorProto

from model_artifacts import identity, write
from model_process import SECONDS, ServerProcess, free_port, started

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # tritonclient's messages were made for an older protobuf
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException, triton_to_np_dtype

TYPES = {
    "BOOL": TensorProto.BOOL,
    "FP16": TensorProto.FLOAT16,
    "BYTES": TensorProto.STRING,
}


def client(running: ServerProcess) -> Any:
    return triton.InferenceServerClient(f"127.0.0.1:{running.wait_for('listening for gRPC')['port']}")


def tensor(array: np.ndarray[Any, Any], datatype: str = "FP32") -> Any:
    found = triton.InferInput("x", list(array.shape), datatype)
    found.set_data_from_numpy(array)
    return found


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for `condition`, AssertionError when it doesn't come true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def running(onnx_file: Path) -> Iterator[ServerProcess]:
    with started("--model", f"digits={onnx_file}", GRPC_PORT=free_port(), MAX_BODY_BYTES="4000000") as server:
        yield server


def test_tritonclient_works_unchanged(running: ServerProcess) -> None:
    with client(running) as asked:
        assert asked.is_server_live()
        assert asked.is_server_ready()
        assert asked.is_model_ready("digits")
        assert asked.get_server_metadata().name == "inflight-model-server"
        assert asked.get_model_metadata("digits").inputs[0].name == "x"
        rows = np.arange(200_000, dtype=np.float32).reshape(-1, 2)
        answer = asked.infer("digits", [tensor(rows)], request_id="one", headers={"x-request-id": "r-1"})
        np.testing.assert_array_equal(answer.as_numpy("y"), rows + 1)
        assert answer.get_response().id == "one"
        with pytest.raises(InferenceServerException, match=r"must have shape \[-1, 2\], not \[1, 3\]") as refused:
            asked.infer("digits", [tensor(np.ones((1, 3), np.float32))])
        assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
        with pytest.raises(InferenceServerException, match="larger than max"):
            asked.infer("digits", [tensor(np.ones((600_000, 2), np.float32))])


def test_grpc_and_http_share_their_metrics(running: ServerProcess) -> None:
    before = running.metric('request_seconds_count{code="200"}')
    with client(running) as asked:
        asked.infer("digits", [tensor(np.ones((1, 2), np.float32))])
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    httpx.post(running.url + "/v2/models/digits/infer", json=body)
    assert running.metric('request_seconds_count{code="200"}') == before + 2
    assert running.metric("requests_in_flight") == 0


@pytest.mark.parametrize("datatype", TYPES)
def test_datatypes_go_through_a_real_model(tmp_path: Path, datatype: str) -> None:
    values = [[b"a", b""]] if datatype == "BYTES" else [[1, 0]]
    array = np.array(values, triton_to_np_dtype(datatype))
    model = write(tmp_path, "same.onnx", identity(TYPES[datatype], ["rows", 2]))
    with (
        started("--model", f"digits={model}", GRPC_PORT=free_port()) as server,
        client(server) as asked,
    ):
        answer = asked.infer("digits", [tensor(array, datatype)]).as_numpy("y")
    assert answer.tolist() == array.tolist()


@pytest.mark.parametrize("held", [{"GRPC_PORT": free_port(), "DRAIN_DELAY_SECONDS": "1"}], indirect=True)
def test_sigterm_turns_readiness_off_and_finishes_what_runs(held: Any) -> None:
    running: ServerProcess = held.running
    with client(running) as asked, ThreadPoolExecutor() as threads:
        prediction = threads.submit(asked.infer, "digits", [tensor(np.ones((1, 2), np.float32))])
        eventually(lambda: held.calls == 1)
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("draining")
        assert not asked.is_server_ready()
        held.let_go()
        assert prediction.result(10).as_numpy("y").tolist() == [[1.0, 1.0]]
    assert running.ended() == 0


@pytest.mark.parametrize("held", [{"GRPC_PORT": free_port()}], indirect=True)
def test_a_client_that_cancels_frees_its_place_in_the_queue(held: Any) -> None:
    running: ServerProcess = held.running
    inputs = [tensor(np.ones((1, 2), np.float32))]
    with client(running) as asked, ThreadPoolExecutor() as threads:
        first = threads.submit(asked.infer, "digits", inputs)
        eventually(lambda: held.calls == 1)
        with pytest.raises(InferenceServerException) as late:
            asked.infer("digits", inputs, client_timeout=0.3)
        assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        leaving = asked.async_infer("digits", inputs, callback=lambda *_: None)
        eventually(lambda: running.metric("queue_depth") == 1)
        leaving.cancel()
        eventually(lambda: running.metric("cancelled_total") == 1)
        assert running.metric("requests_in_flight") == 1
        held.let_go()
        first.result(10)
    assert held.calls == 1


def test_a_port_that_was_asked_for_and_is_taken_ends_the_start(onnx_file: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with started("--model", f"digits={onnx_file}", ready=False, GRPC_PORT=port) as running:
            assert running.ended() == 1
            assert any("can't listen on port" in line for line in running.raw)


def test_a_server_without_grpcio_serves_http_alone(onnx_file: Path) -> None:
    missing = "import sys; sys.modules['grpc'] = None"
    with started("--model", f"digits={onnx_file}", before=missing, GRPC_PORT="") as running:
        assert httpx.get(running.url + "/v2/health/ready").status_code == 200
        assert not any("gRPC" in line for line in running.raw)
