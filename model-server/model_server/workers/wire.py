"""Tensors and errors as bytes between the front and its workers: a JSON header, and raw buffers one after another.

What comes from a worker is foreign input, for a model's code can write there: everything is checked against what is
really there, and nothing is ever unpickled. Pure.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson

from model_server.models.tensors import DATATYPES, Array, Tensors, datatype_of

_ALIGNMENT: Final = 64
_MAX_TENSORS: Final = 4096
_MAX_RANK: Final = 64
_LENGTH: Final = struct.Struct("<I")

Part = tuple[int, memoryview]
"""(offset, bytes)."""


class WireError(Exception):
    """What was received is not what was agreed upon."""


def described(tensors: Tensors) -> tuple[list[list[Any]], list[Part], int]:
    """(what a header says of the tensors, where each one's bytes go, bytes that they need altogether).

    TypeError for types that the protocol has no name for.
    """
    told: list[list[Any]] = []
    parts: list[Part] = []
    end = 0
    for name, array in tensors.items():
        datatype = datatype_of(array)
        if datatype is None:
            raise TypeError(f"{name!r} has type {array.dtype}, which the protocol has no name for")
        data = _texts(array) if datatype == "BYTES" else _bytes(array)
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = start + data.nbytes
        parts.append((start, data))
        told.append([name, datatype, list(array.shape), start, data.nbytes])
    return told, parts, end


def tensors(told: Any, memory: memoryview, *, copy: bool) -> dict[str, Array]:
    """The tensors that a header tells of, out of `memory`: copies, or read-only views. WireError."""
    if not isinstance(told, list) or len(told) > _MAX_TENSORS:
        raise WireError("tensors must be a list")
    found: dict[str, Array] = {}
    for entry in told:
        name, datatype, shape, start, size = _checked(entry, memory.nbytes)
        data = memory[start : start + size]
        if datatype == "BYTES":
            array = _untexts(data, math.prod(shape)).reshape(shape)
        else:
            dtype = DATATYPES[datatype]
            if math.prod(shape) * dtype.itemsize != size:
                raise WireError(f"{name!r}: {size} bytes are no {datatype} of shape {shape}")
            array = np.frombuffer(data, dtype).reshape(shape)
            if copy:
                array = array.copy()
            else:
                array.flags.writeable = False
        found[name] = array
    return found


def _checked(entry: Any, available: int) -> tuple[str, str, list[int], int, int]:
    match entry:
        case [str(name), str(datatype), list(shape), int(start), int(size)] if datatype in DATATYPES:
            pass
        case _:
            raise WireError("a tensor must be told as [name, datatype, shape, start, size]")
    if len(shape) > _MAX_RANK or not all(type(length) is int and length >= 0 for length in shape):
        raise WireError(f"{name!r} has no shape")
    if start < 0 or size < 0 or start + size > available:
        raise WireError(f"{name!r} lies outside of the {available} bytes that there are")
    return name, datatype, shape, start, size


def _bytes(array: Array) -> memoryview:
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _texts(array: Array) -> memoryview:
    """Each element's length and bytes; text as UTF-8."""
    joined = bytearray()
    for item in array.reshape(-1).tolist():
        data = item if isinstance(item, bytes) else str(item).encode()
        joined += _LENGTH.pack(len(data))
        joined += data
    return memoryview(joined)


def _untexts(data: memoryview, count: int) -> Array:
    if count * _LENGTH.size > data.nbytes:
        raise WireError(f"{data.nbytes} bytes are too few for {count} texts")
    texts = np.empty(count, object)
    position = 0
    for index in range(count):
        if position + _LENGTH.size > data.nbytes:
            raise WireError("a text lacks its length")
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if position + length > data.nbytes:
            raise WireError("a text is longer than what is there")
        texts[index] = bytes(data[position : position + length])
        position += length
    if position != data.nbytes:
        raise WireError(f"{data.nbytes - position} bytes belong to no text")
    return texts


def placed(parts: Sequence[Part], end: int) -> bytearray:
    """The parts where they belong, for messages that are small enough to travel with their header."""
    memory = bytearray(end)
    for start, data in parts:
        memory[start : start + data.nbytes] = data
    return memory


def header(message: dict[str, Any]) -> bytes:
    """A header's bytes."""
    return orjson.dumps(message)


def parsed(data: bytes | memoryview) -> dict[str, Any]:
    """A header. WireError."""
    try:
        message = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise WireError(f"no JSON: {error}") from None
    if not isinstance(message, dict):
        raise WireError("a header must be an object")
    return message
