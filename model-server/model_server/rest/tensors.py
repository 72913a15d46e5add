"""JSON numbers, booleans and strings to arrays and back.

Nothing is allocated from a declared shape: a shape is only compared with the data that came.
"""

from __future__ import annotations

import math
import reprlib
import struct
from itertools import chain
from typing import Any, Final

import numpy as np

from model_server.errors import Code, Problem
from model_server.models.tensors import DATATYPES, Array

MAX_RANK: Final = 32

_ALLOWED: Final[dict[str, frozenset[type]]] = {
    "b": frozenset((bool,)),
    "i": frozenset((int,)),
    "u": frozenset((int,)),
    "f": frozenset((int, float)),
    "O": frozenset((str,)),
}
_WORDS: Final = {"b": "true or false", "i": "integers", "u": "integers", "f": "numbers", "O": "strings"}
_CODES: Final = {name: {"l": "q", "L": "Q"}.get(dtype.char, dtype.char) for name, dtype in DATATYPES.items()}
"""Of struct, whose standard sizes are ours."""
_NUMBER_ERRORS: Final = (struct.error, OverflowError)

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


def bad(detail: str) -> Problem:
    """Problem(bad_input)."""
    return Problem(Code.BAD_INPUT, detail)


def shown(value: Any) -> str:
    """A client's value in an error: short, quoted, on one line, however large or deep it is."""
    text = _short.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_shape(shape: Any, where: str) -> list[int]:
    """`shape` as a list of positive integers. Problem(bad_input)."""
    if type(shape) is not list:
        raise bad(f"{where}: shape must be a list of integers")
    if len(shape) > MAX_RANK:
        raise bad(f"{where}: shape has {len(shape)} dimensions, at most {MAX_RANK} are supported")
    for size in shape:
        if type(size) is not int:
            raise bad(f"{where}: shape must be a list of integers, not {shown(shape)}")
        if size < 1:
            raise bad(f"{where}: every dimension of the shape must be at least 1, not {shown(shape)}")
    return shape


def infer_shape(data: list[Any], where: str) -> list[int]:
    """The shape of nested lists, read off their first elements. Problem(bad_input) when one is empty."""
    shape: list[int] = []
    level: Any = data
    while type(level) is list:
        shape.append(len(level))
        if not level:
            raise bad(f"{where} must not be empty")
        level = level[0]
    return check_shape(shape, where)


def flatten(data: Any, shape: list[int], where: str) -> list[Any]:
    """Row-major elements of `data`, which is flat or nested exactly as `shape` says. Problem(bad_input)."""
    if type(data) is not list:
        raise bad(f"{where}: data must be a list")
    level = data
    if len(shape) > 1 and data and type(data[0]) is list:
        level = _unnested(data, shape, where)
    expected = math.prod(shape)
    if len(level) != expected:
        raise bad(f"{where}: shape {shown(shape)} needs {expected} elements, data has {len(level)}")
    return level


def _unnested(data: list[Any], shape: list[int], where: str) -> list[Any]:
    level = data
    if len(level) != shape[0]:
        raise bad(f"{where}: data has {len(level)} rows, shape {shown(shape)} needs {shape[0]}")
    for size in shape[1:]:
        if not all(type(row) is list and len(row) == size for row in level):
            raise bad(f"{where}: data is not nested as shape {shown(shape)} says")
        level = list(chain.from_iterable(level))
    return level


def to_array(flat: list[Any], datatype: str, shape: list[int], where: str) -> Array:
    """`flat` as an array of `datatype` and `shape`, whose sizes have been compared. Problem(bad_input)."""
    dtype = DATATYPES[datatype]
    allowed = _ALLOWED[dtype.kind]
    if not allowed.issuperset(map(type, flat)):
        position, value = next((i, v) for i, v in enumerate(flat) if type(v) not in allowed)
        raise bad(f"{where}: {datatype} needs {_WORDS[dtype.kind]}, element {position} is {shown(value)}")
    if datatype == "BYTES":
        array = np.empty(len(flat), dtype)
        array[:] = [text.encode() for text in flat]
        return array.reshape(shape)
    try:
        # Unlike numpy, struct refuses what doesn't fit (only "<" makes it look at FP32), and takes half the time.
        packed = struct.pack(f"<{len(flat)}{_CODES[datatype]}", *flat)
    except _NUMBER_ERRORS:
        position, value = next((i, v) for i, v in enumerate(flat) if not _fits(v, datatype))
        raise bad(f"{where}: element {position}, {shown(value)}, does not fit {datatype}") from None
    return np.ndarray(shape, dtype, bytearray(packed))


def _fits(value: Any, datatype: str) -> bool:
    try:
        struct.pack(f"<{_CODES[datatype]}", value)
    except _NUMBER_ERRORS:
        return False
    return True


def infer_datatype(flat: list[Any], where: str) -> str:
    """The datatype of JSON values whose model declares none. Problem(bad_input) when they are mixed."""
    types = set(map(type, flat))
    for found, datatype in (({bool}, "BOOL"), ({int}, "INT64"), ({int, float}, "FP64"), ({str}, "BYTES")):
        if types <= found:
            return datatype
    raise bad(f"{where}: values must be all numbers, all strings or all booleans")


def to_json(array: Array) -> Any:
    """What orjson writes as the row-major elements of `array`. NaN and infinities become null: JSON has neither."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat if flat.dtype.kind in "biuf" else [_text(item) for item in flat.tolist()]


def to_nested(array: Array) -> Any:
    """`array` as nested lists, by the same rules."""
    if array.dtype.kind in "biuf":
        return np.ascontiguousarray(array) if array.ndim else array.item()
    nested = array.tolist()
    return _texts(nested)


def _texts(nested: Any) -> Any:
    return [_texts(item) for item in nested] if isinstance(nested, list) else _text(nested)


def _text(item: Any) -> str:
    if isinstance(item, bytes):
        try:
            return item.decode()
        except UnicodeDecodeError:
            raise Problem(
                Code.MODEL_ERROR, "the model answered bytes that are no text, JSON can't carry them: ask for them raw"
            ) from None
    return str(item)
