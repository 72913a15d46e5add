"""Looks into an ONNX file without loading it: is it one, and does it want other files?

A small reader of the protobuf wire format that follows ONNX's own nesting. It allocates nothing but what it looks at,
skips tensors by their length, and trusts no length that is longer than what is there.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

Buffer = mmap.mmap | bytes | memoryview

_MAX_DEPTH: Final = 64
_LOCATION: Final = 14
_EXTERNAL: Final = 1
_EXTERNAL_DATA: Final = 13

# Message → its fields that hold messages in which a tensor may be: field number → message.
_NESTING: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Tensor": {},
}
_MODEL_FIELDS: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
_GRAPH, _IR_VERSION, _OPSETS = 7, 1, 8


class NotProtobufError(Exception):
    """The bytes are no protobuf message."""


def is_onnx(path: Path) -> bool:
    """Whether `path` is an ONNX model by structure: its fields are ModelProto's, with a graph, version and opsets."""
    with _mapped(path) as data:
        try:
            seen = {number for number, _, _, _ in _fields(data, 0, len(data))}
        except NotProtobufError:
            return False
    return {_GRAPH, _IR_VERSION, _OPSETS} <= seen <= _MODEL_FIELDS


def wants_external_data(path: Path) -> bool:
    """Whether any tensor of the ONNX model at `path` lies in another file. NotProtobufError when it can't be read."""
    with _mapped(path) as data:
        return _external(data, 0, len(data), "Model", 0)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return mmap.mmap(-1, 1)


def _external(data: Buffer, start: int, end: int, message: str, depth: int) -> bool:
    if depth > _MAX_DEPTH:
        raise NotProtobufError
    nesting = _NESTING[message]
    for number, value, begin, stop in _fields(data, start, end):
        if message == "Tensor" and (number == _EXTERNAL_DATA or (number == _LOCATION and value == _EXTERNAL)):
            return True
        inner = nesting.get(number)
        if inner is not None and begin >= 0 and _external(data, begin, stop, inner, depth + 1):
            return True
    return False


def _fields(data: Buffer, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, varint value or 0, start and end of a length-delimited value or -1) of one message."""
    while position < end:
        key, position = _varint(data, position, end)
        number, wire = key >> 3, key & 7
        value, begin, stop = 0, -1, -1
        if wire == 0:
            value, position = _varint(data, position, end)
        elif wire == 2:
            length, begin = _varint(data, position, end)
            position = stop = begin + length
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            raise NotProtobufError
        if number == 0 or position > end:
            raise NotProtobufError
        yield number, value, begin, stop


def _varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise NotProtobufError
