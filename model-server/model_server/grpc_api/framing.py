"""The raw tensors of a message, apart from its other fields.

protobuf copies each of them twice on the way in and on the way out. On the wire they are fields like any other, and
messages concatenate: so they are cut out of a request before it is parsed, and put behind the rest of an answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf.message import DecodeError

from model_server.errors import Code, Problem
from model_server.grpc_api.messages import ModelInferRequest, ModelInferResponse

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_RAW_INPUT: Final = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | _BYTES
_RAW_OUTPUT: Final = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | _BYTES
_LONGEST_VARINT: Final = 10


def parse(body: bytes) -> tuple[ModelInferRequest, list[memoryview]]:
    """The request without its raw contents, and those as parts of `body`. Problem(bad_request) when it is none."""
    try:
        rest, raw = _cut(body)
        return ModelInferRequest.FromString(b"".join(rest)), raw
    except (DecodeError, IndexError, ValueError):
        raise Problem(Code.BAD_REQUEST, "the message is no inference.ModelInferRequest") from None


def _cut(body: bytes) -> tuple[list[memoryview], list[memoryview]]:
    view = memoryview(body)
    rest: list[memoryview] = []
    raw: list[memoryview] = []
    at, end = 0, len(body)
    while at < end:
        field = at
        key, start = _varint(body, at)
        kind = key & 7
        if kind == _BYTES:
            size, start = _varint(body, start)
            at = start + size
        elif kind == _VARINT:
            _, at = _varint(body, start)
        elif kind in (_FIXED_64, _FIXED_32):
            at = start + (8 if kind == _FIXED_64 else 4)
        else:
            raise ValueError(kind)
        if at > end:
            raise IndexError(at)
        if key == _RAW_INPUT:
            raw.append(view[start:at])
        else:
            rest.append(view[field:at])
    return rest, raw


def _varint(body: bytes, at: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = 0
    for position in range(_LONGEST_VARINT):
        byte = body[at + position]
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return value, at + position + 1
    raise ValueError("a varint without end")


def join(answer: ModelInferResponse, raw: Iterable[bytes | memoryview]) -> bytes:
    """The answer's bytes, `raw` being its raw_output_contents."""
    parts: list[bytes | memoryview] = [answer.SerializeToString()]
    for contents in raw:
        parts += (_encoded(_RAW_OUTPUT) + _encoded(len(contents)), contents)
    return b"".join(parts)


def _encoded(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
