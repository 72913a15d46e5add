"""What is asked and what must come back, in each server's own words. Pure: bytes in, bytes out.

`Talk` is one work in one dialect. Peers that don't speak V2 are asked in their own, shorter JSON, to their advantage.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.server import wire

Array = npt.NDArray[np.generic]
Encode = Callable[[Array], bytes]
Decode = Callable[[bytes], Array]

TIMEOUT_HEADER: Final = "x-request-timeout-ms"
BOUNDARY: Final = "inflight-benchmark"
_DATATYPES: Final = {"float32": "FP32", "int64": "INT64"}


_JSON: Final = {"content-type": "application/json"}
_BYTES: Final = {"content-type": "application/octet-stream"}


@dataclass(frozen=True)
class Dialect:
    """Where and how one array is asked about."""

    path: str
    encode: Encode
    decode: Decode
    headers: Callable[[Array], Mapping[str, str]] = lambda _: _JSON

    def message(self, x: Array, timeout_seconds: float | None = None) -> bytes:
        """A whole request; every server is told the client's patience alike."""
        patience = {TIMEOUT_HEADER: str(round(timeout_seconds * 1000))} if timeout_seconds else {}
        return wire.request("POST", self.path, self.encode(x), {**self.headers(x), **patience})

    def matches(self, body: bytes, wanted: Array, tolerance: float = 1e-4) -> bool:
        """Whether an answer's body is right; one that can't be read is not."""
        try:
            got = self.decode(body)
        except (ValueError, LookupError, TypeError):
            return False
        return got.size == wanted.size and bool(np.allclose(got.reshape(wanted.shape), wanted, tolerance, tolerance))


def v2_json(model: str) -> Dialect:
    """Open Inference Protocol, numbers as JSON."""
    return Dialect(f"/v2/models/{model}/infer", _v2_body, _v2_answer)


def plain_json(path: str) -> Dialect:
    """{"x": rows} → {"y": rows}, or the bare rows."""
    return Dialect(path, lambda x: json.dumps({"x": x.tolist()}).encode(), _plain_answer)


def raw(path: str) -> Dialect:
    """The tensor's bytes alone."""
    return Dialect(path, lambda x: x.tobytes(), _plain_answer, lambda _: _BYTES)


def multipart(path: str) -> Dialect:
    """The tensor's bytes as an uploaded file."""
    head = (
        f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="x.bin"\r\n'
        "content-type: application/octet-stream\r\n\r\n"
    ).encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    return Dialect(path, lambda x: head + x.tobytes() + tail, _plain_answer, lambda _: kind)


def v2_base64(model: str) -> Dialect:
    """Open Inference Protocol with the tensor's bytes in base64, for a server without the binary extension."""
    return Dialect(f"/v2/models/{model}/infer", _v2_base64_body, _v2_answer)


def v2_binary(model: str) -> Dialect:
    """Open Inference Protocol with the binary tensor extension: JSON first, the tensor's bytes after it."""
    return Dialect(
        f"/v2/models/{model}/infer",
        lambda x: _v2_binary_head(x) + x.tobytes(),
        _v2_answer,
        lambda x: {**_BYTES, "inference-header-content-length": str(len(_v2_binary_head(x)))},
    )


def constant(wanted: Array) -> str:
    """The body that a server sends which knows one answer only."""
    return json.dumps({"outputs": [{"name": "y", "shape": list(wanted.shape), "data": wanted.ravel().tolist()}]})


def _v2_binary_head(x: Array) -> bytes:
    tensor = {"name": "x", "datatype": _DATATYPES[str(x.dtype)], "shape": list(x.shape)}
    return json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": x.nbytes}}]}).encode()


def _v2_body(x: Array) -> bytes:
    tensor = {"name": "x", "datatype": _DATATYPES[str(x.dtype)], "shape": list(x.shape), "data": x.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def _v2_base64_body(x: Array) -> bytes:
    text = base64.b64encode(x.tobytes()).decode()
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "data": [text], "parameters": {"content_type": "base64"}}
    return json.dumps({"inputs": [tensor]}).encode()


def _v2_answer(body: bytes) -> Array:
    output = json.loads(body)["outputs"][0]
    return np.asarray(output["data"]).reshape(output["shape"])


def _plain_answer(body: bytes) -> Array:
    answer = json.loads(body)
    return np.asarray(answer["y"] if isinstance(answer, dict) else answer)
