"""Open Inference Protocol V2: JSON requests to arrays, arrays to JSON answers. Parses and checks; computes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from model_server.errors import Code, Problem
from model_server.lifecycle import Served
from model_server.models.base import Metadata
from model_server.models.tensors import DATATYPES, Array, Tensors, TensorSpec, datatype_of
from model_server.rest.tensors import bad, check_shape, flatten, shown, to_array, to_json


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request."""

    inputs: dict[str, Array]
    id: str | None
    """Echoed in the answer."""
    outputs: tuple[str, ...]
    """Names of the outputs asked for, in their order; empty: all."""


def parse_object(body: bytes | bytearray) -> dict[str, Any]:
    """A JSON object. Problem(invalid_json). Of a repeated key the last one counts; NaN and infinities are no JSON."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(Code.INVALID_JSON, f"the body is no valid JSON: {error}") from None
    if type(parsed) is not dict:
        raise bad("the body must be a JSON object")
    return parsed


def decode(body: bytes | bytearray, metadata: Metadata) -> Request:
    """The request in `body`, whose inputs fit `metadata`. Problem: invalid_json, bad_input."""
    parsed = parse_object(body)
    identifier = parsed.get("id")
    if identifier is not None and (type(identifier) is not str or len(identifier) > 1024):
        raise bad("id must be a string of at most 1024 characters")
    _check_parameters(parsed, "the request")
    tensors = parsed.get("inputs")
    if type(tensors) is not list or not tensors:
        raise bad("inputs must be a list of at least one tensor")
    inputs: dict[str, Array] = {}
    for position, tensor in enumerate(tensors):
        name, array = _tensor(tensor, position)
        if name in inputs:
            raise bad(f"input {shown(name)} is there twice")
        inputs[name] = array
    check_inputs(inputs, metadata)
    return Request(inputs, identifier, _outputs(parsed.get("outputs"), metadata))


def _tensor(tensor: Any, position: int) -> tuple[str, Array]:
    where = f"inputs[{position}]"
    if type(tensor) is not dict:
        raise bad(f"{where} must be an object with name, datatype, shape and data")
    name, datatype = tensor.get("name"), tensor.get("datatype")
    if type(name) is not str or not name:
        raise bad(f"{where}: name must be a string")
    if type(datatype) is not str or datatype not in DATATYPES:
        raise bad(f"{where}: datatype must be one of {', '.join(DATATYPES)}, not {shown(datatype)}")
    _check_parameters(tensor, where)
    shape = check_shape(tensor.get("shape"), where)
    flat = flatten(tensor.get("data"), shape, where)
    return name, to_array(flat, datatype, shape, where)


def _check_parameters(owner: dict[str, Any], where: str) -> None:
    """Parameters are server-specific and this server has none; still they must be an object."""
    if type(owner.get("parameters", {})) is not dict:
        raise bad(f"{where}: parameters must be an object")


def check_inputs(inputs: Tensors, metadata: Metadata) -> None:
    """Problem(bad_input) unless `inputs` are exactly what the model declares, if it declares any."""
    specs = metadata.inputs
    if specs and metadata.any_numeric:
        _check_single(inputs, specs[0])
        return
    for spec in specs:
        array = inputs.get(spec.name)
        if array is None:
            raise bad(f"input {spec.name!r} is missing; the model takes {_names(specs)}")
        if (found := datatype_of(array)) != spec.datatype:
            raise bad(f"input {spec.name!r} must be {spec.datatype}, not {found}")
        _check_shape(array, spec)
    if specs and len(inputs) > len(specs):
        unknown = next(name for name in inputs if all(name != spec.name for spec in specs))
        raise bad(f"input {shown(unknown)} is unknown; the model takes {_names(specs)}")


def _check_single(inputs: Tensors, spec: TensorSpec) -> None:
    if len(inputs) != 1:
        raise bad(f"the model takes one input, not {len(inputs)}")
    (array,) = inputs.values()
    if array.dtype.kind not in "biuf":
        raise bad(f"input {spec.name!r} must be numeric, not BYTES")
    _check_shape(array, spec)


def _check_shape(array: Array, spec: TensorSpec) -> None:
    if not spec.accepts(array.shape):
        raise bad(f"input {spec.name!r} must have shape {list(spec.shape)}, not {list(array.shape)}")


def _outputs(wanted: Any, metadata: Metadata) -> tuple[str, ...]:
    if wanted is None:
        return ()
    if type(wanted) is not list:
        raise bad("outputs must be a list of objects with a name")
    names = []
    for position, output in enumerate(wanted):
        where = f"outputs[{position}]"
        if type(output) is not dict or type(output.get("name")) is not str:
            raise bad(f"{where} must be an object with a name")
        _check_parameters(output, where)
        if metadata.outputs and all(output["name"] != spec.name for spec in metadata.outputs):
            raise bad(f"{where}: no output {shown(output['name'])}; the model has {_names(metadata.outputs)}")
        names.append(output["name"])
    return tuple(names)


def _names(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name!r} ({spec.datatype} {list(spec.shape)})" for spec in specs)


def encode(request: Request, outputs: Tensors, name: str, served: Served) -> bytes:
    """The answer's body. Problem(bad_input) when an output asked for isn't among what the model answered."""
    answer: dict[str, Any] = {"model_name": name, "model_version": served.version}
    if request.id is not None:
        answer["id"] = request.id
    answer["outputs"] = [_output(key, outputs) for key in request.outputs or outputs]
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def _output(name: str, outputs: Tensors) -> dict[str, Any]:
    array = outputs.get(name)
    if array is None:
        raise bad(f"no output {shown(name)}; the model answered {', '.join(map(repr, outputs))}")
    return {"name": name, "datatype": datatype_of(array), "shape": array.shape, "data": to_json(array)}


def metadata_json(name: str, served: Served) -> dict[str, Any]:
    """The answer to GET /v2/models/{name}."""
    metadata = served.metadata
    return {
        "name": name,
        "versions": [served.version],
        "platform": metadata.platform,
        "inputs": [_spec(spec) for spec in metadata.inputs],
        "outputs": [_spec(spec) for spec in metadata.outputs],
        "parameters": {"sha256": served.digest},
    }


def _spec(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
