"""Clients that everybody uses, unmodified, against a real server process: tritonclient over HTTP, KServe's.

KServe's Python package brings 68 others and wants an older protobuf than ours, so what its client (0.21.0) sends is
written down here, byte by byte, with the headers that it adds. The package itself is asked by `make clients`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from model_artifacts import write
from model_process import ServerProcess, started

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gevent warns of a part of the standard library
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ECHO = b"""
class Echo:
    '''Answers what it was asked, of any type and by any name.'''

    def predict(self, inputs):
        return dict(inputs)
"""
ARRAYS = [
    np.array([[True, False]]),
    *(np.array([[0, np.iinfo(kind).max]], kind) for kind in (np.uint8, np.uint16, np.uint32, np.uint64)),
    *(np.array([[np.iinfo(kind).min, 1]], kind) for kind in (np.int8, np.int16, np.int32, np.int64)),
    *(np.array([[-1.5, np.finfo(kind).max]], kind) for kind in (np.float16, np.float32, np.float64)),
    np.array([[b"text", b""]], object),
]


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    model = write(tmp_path_factory.mktemp("echo"), "echo.py", ECHO)
    with started("--model", f"echo={model}", "--format", "python", MAX_BODY_BYTES="16000000") as running:
        yield running


@pytest.fixture
def client(echo: ServerProcess) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{echo.port}") as asked:
        yield asked


def tensor(array: np.ndarray[Any, Any], *, raw: bool = True, name: str = "x") -> Any:
    found = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    found.set_data_from_numpy(array, binary_data=raw)
    return found


def test_tritonclient_is_told_what_there_is(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo")
    assert not client.is_model_ready("another")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    told = client.get_model_metadata("echo")
    assert (told["name"], told["platform"]) == ("echo", "python")
    assert client.is_model_ready("echo", told["versions"][0])


EVERY_WAY = [
    pytest.param(array, raw, id=f"{np_to_triton_dtype(array.dtype)}-{'raw' if raw else 'json'}")
    for array in ARRAYS
    for raw in (True, False)
    if raw or array.dtype != np.float16  # tritonclient sends that raw only
]


@pytest.mark.parametrize(("array", "raw"), EVERY_WAY)
def test_tritonclient_sends_and_gets_every_datatype(client: Any, array: np.ndarray[Any, Any], raw: bool) -> None:
    outputs = [triton.InferRequestedOutput("x", binary_data=raw)]
    answer = client.infer("echo", [tensor(array, raw=raw)], outputs=outputs)
    assert ("data" not in answer.get_output("x")) is raw
    found = answer.as_numpy("x")
    assert found.tolist() == (array.tolist() if raw or array.dtype != object else [["text", ""]])


def test_tritonclient_gets_all_outputs_raw_by_itself_and_its_own_id(client: Any) -> None:
    image, text = np.ones((1, 3, 512, 512), np.float32), np.array([b"\xff"], object)
    answer = client.infer("echo", [tensor(image), tensor(text, name="t"), tensor(image[0, 0, :1], raw=False, name="j")])
    np.testing.assert_array_equal(answer.as_numpy("x"), image)
    assert answer.as_numpy("t").tolist() == [b"\xff"]
    assert answer.as_numpy("j").shape == (1, 512)
    asked = client.infer(
        "echo",
        [tensor(text)],
        request_id="seven",
        sequence_id=3,
        sequence_start=True,
        priority=1,
        timeout=10**6,
        parameters={"mine": "value"},
        headers={"x-request-timeout-ms": "2000"},
        query_params={"key": "value"},
    )
    assert asked.get_response()["id"] == "seven"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_tritonclient_may_compress_what_it_sends_and_ask_for_compressed_answers(client: Any, coding: str) -> None:
    image = np.ones((1, 3, 256, 256), np.float32)
    answer = client.infer(
        "echo", [tensor(image)], request_compression_algorithm=coding, response_compression_algorithm=coding
    )
    np.testing.assert_array_equal(answer.as_numpy("x"), image)


def test_tritonclient_works_asynchronously(client: Any) -> None:
    asked = [client.async_infer("echo", [tensor(np.array([number]))]) for number in range(3)]
    assert [request.get_result().as_numpy("x").tolist() for request in asked] == [[0], [1], [2]]


def test_tritonclient_raises_what_the_server_says(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="no output 'z'; the model answered 'x'") as refused:
        client.infer("echo", [tensor(np.ones(1))], outputs=[triton.InferRequestedOutput("z")])
    assert refused.value.status() == "422"
    with pytest.raises(InferenceServerException, match="no classification"):
        client.infer("echo", [tensor(np.ones(1))], outputs=[triton.InferRequestedOutput("x", class_count=3)])
    with pytest.raises(InferenceServerException) as unknown:
        client.infer("another", [tensor(np.ones(1))])
    assert unknown.value.status() == "404"


def test_a_body_of_nothing_but_a_tensor(onnx_file: Path) -> None:
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    with started("--model", f"digits={onnx_file}") as running:
        answer = httpx.post(
            f"{running.url}/v2/models/digits/infer",
            content=rows.tobytes(),
            headers={"content-type": "application/octet-stream", "inference-header-content-length": "0"},
        )
    length = int(answer.headers["inference-header-content-length"])
    assert np.frombuffer(answer.content, np.float32, offset=length).tolist() == (rows + 1).ravel().tolist()


HEAD = b'{"id":"r1","model_name":"echo","inputs":[{"name":"x","shape":%b,"datatype":"%b",%b}],%b}'
JSON_OUTPUT = b'"outputs":[{"name":"x","parameters":{"binary_data":false}}],"parameters":{"p":"v"}'
RAW_OUTPUT = b'"outputs":[{"name":"x","parameters":{"binary_data":true}}],"parameters":{"p":"v"}'
ALL_RAW = b'"parameters":{"binary_data_output":true}'
SIZE = b'"parameters":{"binary_data_size":%d}'


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        pytest.param(HEAD % (b"[1,2]", b"FP32", b'"data":[1.0,2.0]', JSON_OUTPUT), b"", id="FP32-json"),
        pytest.param(HEAD % (b"[2]", b"BYTES", b'"data":["a","\xc3\xa9"]', JSON_OUTPUT), b"", id="BYTES-json"),
        pytest.param(HEAD % (b"[1,2]", b"FP32", SIZE % 8, RAW_OUTPUT), b"\x00\x00\x80?\x00\x00\x00@", id="FP32-raw"),
        pytest.param(HEAD % (b"[1,2]", b"BOOL", SIZE % 2, RAW_OUTPUT), b"\x01\x00", id="BOOL-raw"),
        pytest.param(HEAD % (b"[1,1]", b"FP16", SIZE % 2, ALL_RAW), b"\x00>", id="FP16-raw"),
        pytest.param(HEAD % (b"[2]", b"BYTES", SIZE % 11, RAW_OUTPUT), b"\1\0\0\0a\2\0\0\0\xc3\xa9", id="BYTES-raw"),
    ],
)
def test_what_kserves_client_sends_is_answered_as_it_reads_it(echo: ServerProcess, head: bytes, tail: bytes) -> None:
    raw = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    headers = raw if tail else {"content-type": "application/json"}
    answer = httpx.post(f"{echo.url}/v2/models/echo/infer", content=head + tail, headers=headers)
    assert answer.status_code == 200
    length = int(answer.headers.get("inference-header-content-length", len(answer.content)))
    told, asked = json.loads(answer.content[:length]), json.loads(head)
    (output,) = told["outputs"]
    assert (told["id"], told["model_name"]) == ("r1", "echo")
    assert (output["datatype"], output["shape"]) == (asked["inputs"][0]["datatype"], asked["inputs"][0]["shape"])
    assert answer.content[length:] == tail
    assert output.get("data") == asked["inputs"][0].get("data")
    assert output.get("parameters", {}) == ({"binary_data_size": len(tail)} if tail else {})


def test_kserves_client_asks_for_health_by_both_protocols(echo: ServerProcess) -> None:
    def told(path: str) -> Any:
        return httpx.get(echo.url + path).json()

    assert told("/")["status"] == "alive"
    assert (
        told("/v1/models/echo")["ready"] is told("/v2/health/ready")["ready"] is told("/v2/health/live")["live"] is True
    )
    assert httpx.get(f"{echo.url}/v2/models/another/ready").status_code == 404
    predicted = httpx.post(f"{echo.url}/v1/models/echo:predict", content=b'{"instances":[[1,2],[3,4]]}')
    assert predicted.json() == {"predictions": [[1, 2], [3, 4]]}
