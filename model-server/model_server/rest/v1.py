"""Protocol V1: {"instances": [...]} to the model's single input, its outputs to {"predictions": [...]}."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import orjson

from model_server.models.base import Metadata
from model_server.models.tensors import Array, Tensors, TensorSpec
from model_server.rest.tensors import bad, flatten, infer_datatype, infer_shape, to_array, to_nested
from model_server.rest.v2 import check_inputs, parse_object

UNNAMED: Final = "instances"
"""The input's name for models that declare none."""


def decode(body: bytes | bytearray, metadata: Metadata) -> dict[str, Array]:
    """The model's input. Problem: invalid_json, bad_input (a model with several inputs needs V2)."""
    instances = parse_object(body).get("instances")
    if type(instances) is not list:
        raise bad('the body must be {"instances": [...]}')
    if len(metadata.inputs) > 1:
        names = ", ".join(repr(spec.name) for spec in metadata.inputs)
        raise bad(f"this model has several inputs ({names}); use POST /v2/models/NAME/infer")
    spec: TensorSpec | None = metadata.inputs[0] if metadata.inputs else None
    shape = infer_shape(instances, "instances")
    flat = flatten(instances, shape, "instances")
    datatype = spec.datatype if spec else infer_datatype(flat, "instances")
    inputs = {spec.name if spec else UNNAMED: to_array(flat, datatype, shape, "instances")}
    check_inputs(inputs, metadata)
    return inputs


def encode(outputs: Tensors) -> bytes:
    """One output: its rows. Several with a row each per instance: one object per instance. Else one object."""
    return orjson.dumps({"predictions": _predictions(outputs)}, option=orjson.OPT_SERIALIZE_NUMPY)


def _predictions(outputs: Tensors) -> Any:
    if len(outputs) == 1:
        return to_nested(next(iter(outputs.values())))
    nested = {name: to_nested(array) for name, array in outputs.items()}
    lengths = {array.shape[0] if array.ndim else None for array in outputs.values()}
    if len(lengths) != 1 or None in lengths:
        return nested
    rows = range(lengths.pop() or 0)
    return [{name: _row(column, row) for name, column in nested.items()} for row in rows]


def _row(column: Any, row: int) -> Any:
    value = column[row]
    return value.item() if isinstance(value, np.generic) else value
