"""An answer as bytes for the shared level, and back: what comes back is foreign, and believed only after checks.

A mark with the format's version, 16 bytes of BLAKE2b keyed with the request's key (so a value can neither be damaged
nor stand under another key unnoticed), the length of a JSON head, the head with every tensor's name, datatype, shape
and size, the tensors' bytes. BYTES elements have 8-byte lengths in front of them all. Nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import struct
from typing import Any, Final

import numpy as np
import orjson

from model_server.cache import store
from model_server.cache.keys import flat, lengths
from model_server.cache.store import Kept
from model_server.models.tensors import DATATYPES, Array, Tensors, datatype_of

MAX_BYTES: Final = 256 * 1024
"""Of a value; larger answers are kept by each replica alone."""
_MARK: Final = b"inflight\x01"
_CHECK_BYTES: Final = 16
_HEAD_AT: Final = len(_MARK) + _CHECK_BYTES
_BYTES: Final = DATATYPES["BYTES"]


class ForeignValueError(Exception):
    """Not a value of this format, of this version, for this key, undamaged."""


def encode(key: bytes, outputs: Tensors) -> bytes | None:
    """None for an answer that is too large, or that can't be carried."""
    heads, parts = [], []
    for name, array in outputs.items():
        datatype = datatype_of(array)
        try:
            part = _text(array) if datatype == "BYTES" else flat(array).astype(DATATYPES[datatype or ""]).tobytes()
        except (KeyError, UnicodeEncodeError):
            return None
        heads.append([name, datatype, array.shape, len(part)])
        parts.append(part)
    head = orjson.dumps(heads)
    body = b"".join((struct.pack("<I", len(head)), head, *parts))
    return _MARK + _check(key, body) + body if _HEAD_AT + len(body) <= MAX_BYTES else None


def decode(key: bytes, value: bytes) -> Kept:
    """ForeignValueError."""
    body = value[_HEAD_AT:]
    if not value.startswith(_MARK) or value[len(_MARK) : _HEAD_AT] != _check(key, body) or len(value) > MAX_BYTES:
        raise ForeignValueError
    try:
        (length,) = struct.unpack_from("<I", body)
        heads, at = orjson.loads(body[4 : 4 + length]), 4 + length
        outputs: dict[str, Array] = {}
        for name, datatype, shape, size in heads:
            if type(name) is not str:
                raise ForeignValueError
            outputs[name] = _array(body[at : at + size], DATATYPES[datatype], shape)
            at += size
    except (ValueError, TypeError, KeyError, struct.error):
        raise ForeignValueError from None
    kept = store.own(outputs)
    if kept is None or at != len(body) or len(outputs) != len(heads):
        raise ForeignValueError
    return kept


def _check(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECK_BYTES, key=key).digest()


def _text(array: Array) -> bytes:
    items = [item.encode() if isinstance(item, str) else item for item in array.ravel().tolist()]
    return lengths(items) + b"".join(items)


def _array(part: bytes, dtype: np.dtype[Any], shape: list[int]) -> Array:
    """Nothing is allocated that isn't there: numpy compares the shape with the elements that came."""
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError
    if dtype != _BYTES:
        return np.frombuffer(part, dtype).reshape(shape)
    count = math.prod(shape)
    ends = np.cumsum([8 * count, *struct.unpack_from(f"<{count}Q", part)]).tolist()
    if ends[-1] != len(part):
        raise ValueError
    array = np.empty(count, object)
    array[:] = [part[start:end] for start, end in itertools.pairwise(ends)]
    return array.reshape(shape)
