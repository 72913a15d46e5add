"""Protocol V1, as TensorFlow Serving and KServe speak it: rows in {"instances": [...]} to {"predictions": [...]}, or
columns in {"inputs": ...} to {"outputs": ...}. Parses and checks; computes nothing.
"""

from __future__ import annotations

import base64
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from model_server.models.base import Metadata
from model_server.models.tensors import Array, Tensors, TensorSpec
from model_server.rest.problems import Answer
from model_server.rest.raw import objects
from model_server.rest.tensors import bad, flatten, infer_datatype, infer_shape, shown, to_array, to_nested
from model_server.rest.v2 import Body, check_inputs, parse_object

UNNAMED: Final = "instances"
"""The input's name for models that declare none."""
_BASE64: Final = "b64"
_BINARY_SUFFIX: Final = "_bytes"
"""Outputs whose name ends so are answered in base64."""


class Request(NamedTuple):
    """A checked request."""

    inputs: dict[str, Array]
    columns: bool
    """Whether inputs came as columns; outputs are answered so too."""


def decode(body: Body, metadata: Metadata) -> Request:
    """The request in `body`, whose inputs fit `metadata`. Problem: invalid_json, bad_input."""
    parsed = parse_object(body)
    instances, columns = parsed.get("instances"), parsed.get("inputs")
    if (instances is None) == (columns is None):
        raise bad('the body must be {"instances": [...]}, rows, or {"inputs": ...}, columns')
    if columns is None:
        named = _columns(instances, metadata)
    elif type(columns) is dict and not _is_base64(columns):
        named = {name: (column, f"inputs[{shown(name)}]") for name, column in columns.items()}
    else:
        named = {_only_name(metadata): (columns, "inputs")}
    specs = {spec.name: spec for spec in metadata.inputs}
    inputs = {name: _array(column, specs.get(name), where) for name, (column, where) in named.items()}
    check_inputs(inputs, metadata)
    return Request(inputs, columns is not None)


def _columns(instances: Any, metadata: Metadata) -> dict[str, tuple[Any, str]]:
    """Rows as columns, each with where it was found."""
    if type(instances) is not list or not instances:
        raise bad("instances must be a list of at least one row; it must not be empty")
    first = instances[0]
    if type(first) is not dict or _is_base64(first):
        return {_only_name(metadata): (instances, "instances")}
    for position, row in enumerate(instances):
        if type(row) is not dict or row.keys() != first.keys():
            raise bad(f"instances[{position}] must be an object with the same names as instances[0]")
    return {name: ([row[name] for row in instances], f"{shown(name)} of the instances") for name in first}


def _only_name(metadata: Metadata) -> str:
    if len(metadata.inputs) > 1:
        names = ", ".join(repr(spec.name) for spec in metadata.inputs)
        raise bad(f"this model has several inputs ({names}): name them, in an object for each row, or in inputs")
    return metadata.inputs[0].name if metadata.inputs else UNNAMED


def _array(data: Any, spec: TensorSpec | None, where: str) -> Array:
    if type(data) is list:
        shape = infer_shape(data, where)
        flat = flatten(data, shape, where)
    else:
        shape, flat = [], [data]
    if any(map(_is_base64, flat)):
        return objects([_bytes(item, position, where) for position, item in enumerate(flat)], shape)
    return to_array(flat, spec.datatype if spec else infer_datatype(flat, where), shape, where)


def _is_base64(value: Any) -> bool:
    return type(value) is dict and value.keys() == {_BASE64}


def _bytes(item: Any, position: int, where: str) -> bytes:
    """A string, or bytes as {"b64": "..."}."""
    if type(item) is str:
        return item.encode()
    if not _is_base64(item) or type(text := item[_BASE64]) is not str:
        raise bad(f'{where}: BYTES needs strings or {{"b64": "..."}}, element {position} is {shown(item)}')
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise bad(f"{where}: element {position} is no base64: {shown(text)}") from None


def encode(request: Request, outputs: Tensors) -> Answer:
    """Columns are answered as columns. Rows: one output's rows; of several with a row each, an object for each row."""
    nested = {name: _nested(name, array) for name, array in outputs.items()}
    answer: dict[str, Any]
    if request.columns:
        answer = {"outputs": nested.popitem()[1] if len(nested) == 1 else nested}
    else:
        answer = {"predictions": _predictions(nested, outputs)}
    return Answer(200, orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))


def _nested(name: str, array: Array) -> Any:
    if name.endswith(_BINARY_SUFFIX) and array.dtype.kind in "OSU":
        return _base64(array.tolist())
    return to_nested(array)


def _base64(nested: Any) -> Any:
    if isinstance(nested, list):
        return [_base64(item) for item in nested]
    data = nested if isinstance(nested, bytes) else str(nested).encode()
    return {_BASE64: base64.b64encode(data).decode()}


def _predictions(nested: dict[str, Any], outputs: Tensors) -> Any:
    if len(nested) == 1:
        return next(iter(nested.values()))
    lengths = {array.shape[0] if array.ndim else None for array in outputs.values()}
    if len(lengths) != 1 or None in lengths:
        return nested
    rows = range(lengths.pop() or 0)
    return [{name: _row(column, row) for name, column in nested.items()} for row in rows]


def _row(column: Any, row: int) -> Any:
    value = column[row]
    return value.item() if isinstance(value, np.generic) else value
