"""Typed contents of gRPC messages to arrays and back; raw ones are the same bytes as over HTTP (rest.raw).

Nothing is allocated from a declared shape: a shape is only compared with the data that came.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from model_server.errors import Code, Problem
from model_server.grpc_api.messages import InferTensorContents
from model_server.models.tensors import DATATYPES, Array, datatype_of
from model_server.rest.raw import objects
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
        return objects(list(elements), shape)
    wide = np.fromiter(elements, wire, count)
    array = wide.astype(DATATYPES[datatype])
    if (array != wide).any() and array.dtype.kind in "iu":
        raise bad(f"{where}: a number does not fit {datatype}")
    return array.reshape(shape)


def datatype(array: Array, name: str) -> str:
    """The protocol's name of what the model answered. Problem(model_error) where it has none."""
    found = datatype_of(array)
    if found is None:
        raise Problem(Code.MODEL_ERROR, f"output {name!r} is {array.dtype}, which the protocol can't carry")
    return found


def has_contents(datatype: str) -> bool:
    """Whether tensors of `datatype` can be answered in typed contents."""
    return datatype in _FIELDS


def to_contents(array: Array, datatype: str) -> InferTensorContents:
    """`array` as typed contents."""
    items = array.reshape(-1).tolist()
    if datatype == "BYTES":
        items = [item if isinstance(item, bytes) else str(item).encode() for item in items]
    return InferTensorContents(**{_FIELDS[datatype][0]: items})
