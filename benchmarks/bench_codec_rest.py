"""What requests and answers of protocol V2 cost to read and to write, without a server and without a model.

python -m benchmarks.bench_codec_rest: best of many rounds, so that a busy machine matters little. Where msgspec is
installed it is measured beside orjson (docs/adr/0007-json.md).
"""

from __future__ import annotations

import random
import timeit
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import orjson

from model_server.lifecycle import Served
from model_server.models.base import Metadata
from model_server.models.tensors import Array, TensorSpec
from model_server.rest import v2

SIZES: Final = {4: 500, 64: 200, 10_000: 5}
"""Elements of a tensor, and how often one round reads or writes it."""
_ROUNDS: Final = 200
_NUMBERS: Final = frozenset((int, float))


def main() -> None:
    """Print microseconds."""
    for size, times in SIZES.items():
        values = [round(random.gauss(0, 1), 4) for _ in range(size)]
        json = orjson.dumps({"inputs": [{**_tensor(size), "data": values}]})
        x = np.array([values], np.float32)
        print(f"{size} float32: {len(json)} bytes of JSON, {x.nbytes} raw ones")
        for name, function in {**_ours(json, x), **_libraries(json, x)}.items():
            print(f"  {name:36} {_microseconds(function, times):9.2f} µs")


def _tensor(size: int) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, size]}


def _ours(json: bytes, x: Array) -> dict[str, Callable[[], Any]]:
    """Whole requests and answers, checked."""
    shape = (-1, -1)
    metadata = Metadata("test", (TensorSpec("x", "FP32", shape),), (TensorSpec("y", "FP32", shape),))
    served = Served(metadata, None, "0" * 64, "1")  # type: ignore[arg-type] - nothing is predicted
    head = orjson.dumps({"inputs": [{**_tensor(x.size), "parameters": {"binary_data_size": x.nbytes}}]})
    raw = head + x.tobytes()
    asked, asked_raw = v2.decode(json, metadata), v2.decode(raw, metadata, len(head))._replace(raw=True)
    return {
        "read JSON": lambda: v2.decode(json, metadata),
        "write JSON": lambda: v2.encode(asked, {"y": x}, "m", served),
        "read raw": lambda: v2.decode(raw, metadata, len(head)),
        "write raw": lambda: v2.encode(asked_raw, {"y": x}, "m", served),
    }


def _microseconds(function: Callable[[], Any], times: int) -> float:
    return 1e6 * min(timeit.repeat(function, number=times, repeat=_ROUNDS)) / times


def _libraries(json: bytes, x: Array) -> dict[str, Callable[[], Any]]:
    """The same JSON by the libraries alone, and numbers checked to be numbers."""

    def answer(data: Any) -> dict[str, Any]:
        return {"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": x.shape, "data": data}]}

    def checked() -> bool:
        return _NUMBERS.issuperset(map(type, orjson.loads(json)["inputs"][0]["data"]))

    found: dict[str, Callable[[], Any]] = {
        "orjson reads": lambda: orjson.loads(json),
        "orjson reads, types checked": checked,
        "orjson writes the array": lambda: orjson.dumps(answer(x.reshape(-1)), option=orjson.OPT_SERIALIZE_NUMPY),
        "orjson writes a list": lambda: orjson.dumps(answer(x.reshape(-1).tolist())),
    }
    if find_spec("msgspec") is None:
        return found
    import msgspec  # noqa: PLC0415 - no dependency of ours

    tensor = msgspec.defstruct(
        "tensor", [("name", str), ("datatype", str), ("shape", list[int]), ("data", msgspec.Raw)]
    )
    request = msgspec.json.Decoder(msgspec.defstruct("request", [("inputs", list[tensor])]))
    numbers, encoder = msgspec.json.Decoder(list[float]), msgspec.json.Encoder()
    return {
        **found,
        "msgspec reads": lambda: msgspec.json.decode(json),
        "msgspec reads, by type": lambda: numbers.decode(request.decode(json).inputs[0].data),
        "msgspec writes a list": lambda: encoder.encode(answer(x.reshape(-1).tolist())),
    }


if __name__ == "__main__":
    main()
