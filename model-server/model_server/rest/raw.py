"""Raw bytes to arrays and back: little-endian, row-major, BYTES elements after their length in four bytes.

Nothing is copied that need not be, and nothing is allocated from a declared shape: it is only compared with the bytes
that came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from model_server.models.tensors import DATATYPES, Array
from model_server.rest.tensors import bad, shown

_LENGTH_BYTES: Final = 4


class Tail:
    """The bytes that follow a request's JSON; each tensor takes what is its own."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._taken = 0

    def take(self, size: int, where: str) -> memoryview:
        """The next `size` bytes. Problem(bad_input) when there are fewer."""
        start, left = self._taken, self._data.nbytes - self._taken
        if size > left:
            raise bad(f"{where}: binary_data_size is {size}, but {left} bytes are left of the body")
        self._taken += size
        return self._data[start : self._taken]

    def check_taken(self) -> None:
        """Problem(bad_input) when some bytes belong to no tensor."""
        if left := self._data.nbytes - self._taken:
            raise bad(f"the body has {left} bytes more than its inputs have by their binary_data_size")


def from_raw(data: memoryview, datatype: str, shape: Sequence[int], where: str) -> Array:
    """The array in `data`. Problem(bad_input).

    A view of `data` where it may be written to (then nobody else has it: a model may do so) and lies as the type wants
    it; a copy otherwise.
    """
    count, dtype = math.prod(shape), DATATYPES[datatype]
    if datatype == "BYTES":
        return objects(_elements(data, count, where), shape)
    if data.nbytes != count * dtype.itemsize:
        need = f"shape {shown(list(shape))} of {datatype} needs {count * dtype.itemsize} bytes"
        raise bad(f"{where}: {need}, not {data.nbytes}")
    if datatype == "BOOL" and count and np.frombuffer(data, np.uint8).max() > 1:
        raise bad(f"{where}: a BOOL must be a byte of 0 or 1")
    array = np.frombuffer(data, dtype.newbyteorder("<"))
    if not (array.flags.behaved and array.dtype.isnative):
        array = array.astype(dtype)
    return array.reshape(shape)


def _elements(data: memoryview, count: int, where: str) -> list[bytes]:
    found: list[bytes] = []
    at, end = 0, data.nbytes
    while at < end and len(found) <= count:
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "little")
        if at > end or start > end:
            raise bad(f"{where}: the bytes end within element {len(found)}")
        found.append(bytes(data[start:at]))
    if len(found) != count:
        some = "more" if len(found) > count else str(len(found))
        raise bad(f"{where}: the shape needs {count} elements, the bytes have {some}")
    return found


def objects(items: list[bytes], shape: Sequence[int]) -> Array:
    """BYTES as an array."""
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)


def to_raw(array: Array) -> memoryview:
    """The bytes of `array`: its own memory where that is one piece of little-endian numbers."""
    if array.dtype.kind in "OSU":
        return memoryview(b"".join(_prefixed(array.reshape(-1).tolist())))
    flat = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
    return flat.view(np.uint8).data


def _prefixed(items: Iterable[object]) -> Iterable[bytes]:
    for item in items:
        data = item if isinstance(item, bytes) else str(item).encode()
        yield len(data).to_bytes(_LENGTH_BYTES, "little")
        yield data
