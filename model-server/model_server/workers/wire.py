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
MAX_BYTES: Final = 2**30
"""Of one message's tensors: the front has to have room for a copy."""
_MAX_RANK: Final = 64
_LENGTH: Final = struct.Struct("<I")

Part = tuple[int, memoryview]
"""(offset, bytes)."""


class WireError(Exception):
    """What was received is not what was agreed upon."""


class UnsendableError(Exception):
    """Tensors or texts that can't be put into a message."""


def described(tensors: Tensors) -> tuple[list[list[Any]], list[Part], int]:
    """(what a header says of the tensors, where each one's bytes go, bytes that they need altogether).

    UnsendableError for types that the protocol has no name for, and for more than a message takes.
    """
    told: list[list[Any]] = []
    parts: list[Part] = []
    end = 0
    for name, array in tensors.items():
        datatype = datatype_of(array)
        if datatype is None:
            raise UnsendableError(f"{name!r} has type {array.dtype}, which the protocol has no name for")
        data = _texts(array) if datatype == "BYTES" else _bytes(array)
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = start + data.nbytes
        parts.append((start, data))
        told.append([name, datatype, list(array.shape), start, data.nbytes])
    if end > MAX_BYTES or len(told) > _MAX_TENSORS:
        raise UnsendableError(f"{len(told)} tensors of {end} bytes; {_MAX_TENSORS} of {MAX_BYTES} can be sent")
    return told, parts, end


def tensors(told: Any, memory: memoryview) -> dict[str, Array]:
    """The tensors that a header tells of, copied out of `memory`, which the other end may write to. WireError."""
    if not isinstance(told, list) or len(told) > _MAX_TENSORS:
        raise WireError("tensors must be a list")
    found: dict[str, Array] = {}
    left = memory.nbytes
    for entry in told:
        name, datatype, shape, start, size = _checked(entry, memory.nbytes)
        left -= size
        if name in found or left < 0:
            raise WireError(f"{name!r}, or its memory, comes twice")
        try:
            found[name] = _array(datatype, shape, memory[start : start + size])
        except (ValueError, OverflowError) as error:
            raise WireError(f"{name!r}: {size} bytes are no {datatype} of shape {shape}: {error}"[:500]) from None
    return found


def _array(datatype: str, shape: list[int], data: memoryview) -> Array:
    """ValueError, OverflowError when it is none."""
    count = math.prod(shape)
    if datatype == "BYTES":
        return _untexts(bytes(data), count).reshape(shape)
    dtype = DATATYPES[datatype]
    if count * dtype.itemsize != data.nbytes:
        raise ValueError("the sizes differ")
    if datatype == "BOOL":
        return np.not_equal(np.frombuffer(data, np.uint8), 0).reshape(shape)  # other bit patterns are no bool to numpy
    return np.frombuffer(data, dtype).reshape(shape).copy()


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
    try:
        for item in array.reshape(-1).tolist():
            data = item if isinstance(item, bytes) else str(item).encode()
            joined += _LENGTH.pack(len(data))
            joined += data
    except (UnicodeEncodeError, struct.error) as error:
        raise UnsendableError(f"a text: {error}") from None
    return memoryview(joined)


def _untexts(data: bytes, count: int) -> Array:
    if count * _LENGTH.size > len(data):
        raise ValueError("too few bytes")
    texts = np.empty(count, object)
    position = 0
    for index in range(count):
        if position + _LENGTH.size > len(data):
            raise ValueError("a text lacks its length")
        start = position + _LENGTH.size
        position = start + _LENGTH.unpack_from(data, position)[0]
        if position > len(data):
            raise ValueError("a text is longer than what is there")
        texts[index] = data[start:position]
    if position != len(data):
        raise ValueError(f"{len(data) - position} bytes belong to no text")
    return texts


def placed(parts: Sequence[Part], end: int) -> bytearray:
    """The parts where they belong, for messages that are small enough to travel with their header."""
    memory = bytearray(end)
    for start, data in parts:
        memory[start : start + data.nbytes] = data
    return memory


def header(message: dict[str, Any]) -> bytes:
    """A header's bytes. UnsendableError for text that is no Unicode."""
    try:
        return orjson.dumps(message)
    except orjson.JSONEncodeError as error:
        raise UnsendableError(str(error)) from None


def parsed(data: bytes | memoryview) -> dict[str, Any]:
    """A header. WireError."""
    try:
        message = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise WireError(f"no JSON: {error}") from None
    if not isinstance(message, dict):
        raise WireError("a header must be an object")
    return message
