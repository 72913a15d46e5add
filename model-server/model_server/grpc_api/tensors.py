"""Tensors in gRPC messages: raw bytes or typed contents to arrays and back.

Nothing is allocated from a declared shape: a shape is only compared with the data that came. Arrays that are made here
are copies, so that a model may write into its inputs as it may into those that came as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from model_server.errors import Code, Problem
from model_server.grpc_api.messages import InferTensorContents
from model_server.models.tensors import DATATYPES, Array, datatype_of
from model_server.rest.tensors import bad, shown

_FIELDS: Final[dict[str, tuple[str, str]]] = {
    "BOOL": ("bool_contents", "?"),
    "INT8": ("int_contents", "<i4"),
    "INT16": ("int_contents", "<i4"),
    "INT32": ("int_contents", "<i4"),
    "INT64": ("int64_contents", "<i8"),
    "UINT8": ("uint_contents", "<u4"),
    "UINT16": ("uint_contents", "<u4"),
    "UINT32": ("uint_contents", "<u4"),
    "UINT64": ("uint64_contents", "<u8"),
    "FP32": ("fp32_contents", "<f4"),
    "FP64": ("fp64_contents", "<f8"),
    "BYTES": ("bytes_contents", "O"),
}
"""Where each datatype's elements are, and as what; FP16 has no field."""
_LENGTH_BYTES: Final = 4


def from_raw(raw: memoryview, datatype: str, shape: Sequence[int], where: str) -> Array:
    """The array in raw little-endian bytes. Problem(bad_input)."""
    count, dtype = math.prod(shape), DATATYPES[datatype]
    if datatype == "BYTES":
        return _objects(_strings(raw, count, where), shape)
    if raw.nbytes != count * dtype.itemsize:
        need = f"{shown(list(shape))} of {datatype} needs {count * dtype.itemsize} bytes"
        raise bad(f"{where}: shape {need}, the raw contents have {raw.nbytes}")
    if datatype == "BOOL":
        return np.not_equal(np.frombuffer(raw, np.uint8), 0).reshape(shape)
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype).reshape(shape)


def _strings(raw: memoryview, count: int, where: str) -> list[bytes]:
    found: list[bytes] = []
    at, end = 0, raw.nbytes
    while at < end and len(found) <= count:
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "little")
        if start > end or at > end:
            raise bad(f"{where}: the raw contents end within element {len(found)}")
        found.append(bytes(raw[start:at]))
    if len(found) != count:
        raise bad(f"{where}: the shape needs {count} elements, the raw contents have {_at_least(len(found), count)}")
    return found


def _at_least(found: int, count: int) -> str:
    return "more" if found > count else str(found)


def from_contents(contents: InferTensorContents, datatype: str, shape: Sequence[int], where: str) -> Array:
    """The array in typed contents. Problem(bad_input)."""
    if datatype not in _FIELDS:
        raise bad(f"{where}: {datatype} has no typed contents, it must come in raw_input_contents")
    field, wire = _FIELDS[datatype]
    elements = getattr(contents, field)
    count = math.prod(shape)
    if len(elements) != count:
        raise bad(f"{where}: shape {shown(list(shape))} needs {count} elements, {field} has {len(elements)}")
    if datatype == "BYTES":
        return _objects(list(elements), shape)
    wide = np.fromiter(elements, wire, count)
    array = wide.astype(DATATYPES[datatype])
    if (array != wide).any() and array.dtype.kind in "iu":
        raise bad(f"{where}: a number does not fit {datatype}")
    return array.reshape(shape)


def _objects(items: list[bytes], shape: Sequence[int]) -> Array:
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)


def datatype(array: Array, name: str) -> str:
    """The protocol's name of what the model answered. Problem(model_error) where it has none."""
    found = datatype_of(array)
    if found is None:
        raise Problem(Code.MODEL_ERROR, f"output {name!r} is {array.dtype}, which the protocol can't carry")
    return found


def to_raw(array: Array) -> bytes | memoryview:
    """The raw bytes of `array`, not copied where they are one piece of little-endian numbers."""
    if array.dtype.kind in "OSU":
        parts = [text for item in array.reshape(-1).tolist() for text in _prefixed(item)]
        return b"".join(parts)
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
    return flat.view(np.uint8).data


def _prefixed(item: Any) -> tuple[bytes, bytes]:
    text = _bytes(item)
    return len(text).to_bytes(_LENGTH_BYTES, "little"), text


def _bytes(item: Any) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()


def has_contents(datatype: str) -> bool:
    """Whether tensors of `datatype` can be answered in typed contents."""
    return datatype in _FIELDS


def to_contents(array: Array, datatype: str) -> InferTensorContents:
    """`array` as typed contents."""
    items = array.reshape(-1).tolist()
    if datatype == "BYTES":
        items = [_bytes(item) for item in items]
    return InferTensorContents(**{_FIELDS[datatype][0]: items})
