"""Asks a server everything that KServe's own clients can ask, unchanged. Run by test_kserve.py, with KServe's packages.

kserve_client.py HTTP_PORT GRPC_PORT: exit status 0, or the traceback of what was not as it should be.
"""

import asyncio
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferOutput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

Array = np.ndarray[Any, Any]

MODEL = "echo"
ARRAYS = {
    "FP32": np.arange(6, dtype=np.float32).reshape(3, 2) / 4,
    "FP64": np.array([[1.5, -2.0]]),
    "INT64": np.array([[2**53, -1]]),
    "INT32": np.array([[7, 8]], np.int32),
    "UINT8": np.array([[0, 255]], np.uint8),
    "BOOL": np.array([[True, False]]),
    "FP16": np.array([[1.5, 2.5]], np.float16),
    "BYTES": np.array([["text", "é"]], object),
}


def request(array: Array, datatype: str, *, raw: bool) -> InferRequest:
    asked = InferInput("x", list(array.shape), datatype)
    asked.set_data_from_numpy(array, binary_data=raw)
    wanted = [RequestedOutput("x", parameters={"binary_data": raw})]
    return InferRequest(MODEL, [asked], request_id="r1", request_outputs=wanted)


def check(output: InferOutput, array: Array, what: str) -> None:
    found = output.as_numpy()
    texts = [x.decode() if isinstance(x, bytes) else x for x in found.reshape(-1).tolist()]
    assert (texts, list(found.shape)) == (array.reshape(-1).tolist(), list(array.shape)), (what, found)


async def rest(url: str) -> None:
    v2 = InferenceRESTClient(RESTConfig(protocol="v2", retries=1))
    assert await v2.is_server_live(url)
    assert await v2.is_server_ready(url)
    assert await v2.is_model_ready(url, MODEL)
    for datatype, array in ARRAYS.items():
        for raw in (True,) if datatype == "FP16" else (True, False):
            answer = await v2.infer(url, request(array, datatype, raw=raw), model_name=MODEL)
            assert (answer.id, answer.model_name) == ("r1", MODEL)
            check(answer.outputs[0], array, f"REST {datatype} raw={raw}")
    status = 0
    try:
        await v2.infer(url, request(np.ones((1, 1)), "FP64", raw=False), model_name="other")
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
    assert status == 404
    await v2.close()
    v1 = InferenceRESTClient(RESTConfig(protocol="v1", retries=1))
    assert await v1.is_server_live(url)
    assert await v1.is_model_ready(url, MODEL)
    answer = await v1.infer(url, {"instances": [[1, 2], [3, 4]]}, model_name=MODEL)
    assert answer == {"predictions": [[1, 2], [3, 4]]}, answer
    await v1.close()


async def over_grpc(address: str) -> None:
    client = InferenceGRPCClient(address, verbose=False)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready(MODEL)
    for datatype, array in ARRAYS.items():
        for raw in (True,) if datatype == "FP16" else (True, False):
            answer = await client.infer(request(array, datatype, raw=raw))
            assert (answer.id, answer.model_name) == ("r1", MODEL)
            check(answer.outputs[0], array, f"gRPC {datatype} raw={raw}")
    asked, code = request(np.ones((1, 1)), "FP64", raw=False), None
    asked.model_name = "other"
    try:
        await client.infer(asked)
    except grpc.RpcError as error:
        code = error.code()
    assert code is grpc.StatusCode.NOT_FOUND
    await client.close()


async def main() -> None:
    await rest(f"http://127.0.0.1:{sys.argv[1]}")
    await over_grpc(f"127.0.0.1:{sys.argv[2]}")


asyncio.run(main())
