"""Open Inference Protocol V2: requests to arrays, arrays to answers, in JSON and in raw bytes behind it (the binary
tensor data extension). Parses and checks; computes nothing.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import orjson

from model_server.errors import Code, Problem
from model_server.lifecycle import Served
from model_server.models.base import Metadata
from model_server.models.tensors import DATATYPES, Array, Tensors, TensorSpec, datatype_of
from model_server.rest.problems import OCTETS, Answer
from model_server.rest.raw import Tail, from_raw, objects, to_raw
from model_server.rest.tensors import bad, check_shape, flatten, shown, to_array, to_json
from model_server.rest.wire import JSON_LENGTH

Body = bytes | bytearray | memoryview

MAX_INPUTS: Final = 1024
"""Of one request; models that declare theirs take fewer."""
EXTENSIONS: Final = ("binary_tensor_data",)
_UNSUPPORTED: Final = ("classification", "shared_memory_region")
"""Parameters of extensions that this server lacks and that change what is asked; all others change nothing here."""


class Request(NamedTuple):
    """A checked request."""

    inputs: dict[str, Array]
    id: str | None = None
    """Echoed in the answer."""
    outputs: dict[str, bool] = {}  # noqa: RUF012 - never changed
    """Names of the outputs asked for, in their order, and whether each is wanted raw; empty: all."""
    raw: bool = False
    """Whether outputs are answered raw where `outputs` doesn't say."""


def parse_object(body: Body) -> dict[str, Any]:
    """A JSON object. Problem(invalid_json). Of a repeated key the last one counts; NaN and infinities are no JSON."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(Code.INVALID_JSON, f"the body is no valid JSON: {error}") from None
    if type(parsed) is not dict:
        raise bad("the body must be a JSON object")
    return parsed


def decode(body: Body, metadata: Metadata, json_length: int | None = None) -> Request:
    """The request in `body`, whose inputs fit `metadata`. Problem: invalid_json, bad_request, bad_input.

    `json_length`: bytes of JSON, with raw tensors after it; None: all of the body; 0: none, the body is one raw tensor.
    """
    if json_length is None:
        return _decode(parse_object(body), None, metadata)
    if json_length > len(body):
        length = f"inference-header-content-length is {json_length}"
        raise Problem(Code.BAD_REQUEST, f"{length}, the body has {len(body)} bytes")
    data = memoryview(body)
    if not json_length:
        return Request(_only_input(data, metadata), raw=True)
    tail = Tail(data[json_length:])
    request = _decode(parse_object(data[:json_length]), tail, metadata)
    tail.check_taken()
    return request


def _decode(parsed: dict[str, Any], tail: Tail | None, metadata: Metadata) -> Request:
    identifier = parsed.get("id")
    if identifier is not None and (type(identifier) is not str or len(identifier) > 1024):
        raise bad("id must be a string of at most 1024 characters")
    raw = _flag(parsed, "binary_data_output", False, "the request")
    tensors = parsed.get("inputs")
    if type(tensors) is not list or not tensors:
        raise bad("inputs must be a list of at least one tensor")
    if len(tensors) > MAX_INPUTS:
        raise bad(f"inputs has {len(tensors)} tensors, at most {MAX_INPUTS} are supported")
    inputs: dict[str, Array] = {}
    for position, tensor in enumerate(tensors):
        name, array = _tensor(tensor, tail, f"inputs[{position}]")
        if name in inputs:
            raise bad(f"input {shown(name)} is there twice")
        inputs[name] = array
    check_inputs(inputs, metadata)
    return Request(inputs, identifier, _outputs(parsed.get("outputs"), raw, metadata), raw)


def _tensor(tensor: Any, tail: Tail | None, where: str) -> tuple[str, Array]:
    if type(tensor) is not dict:
        raise bad(f"{where} must be an object with name, datatype, shape and data")
    name, datatype = tensor.get("name"), tensor.get("datatype")
    if type(name) is not str or not name:
        raise bad(f"{where}: name must be a string")
    if type(datatype) is not str or datatype not in DATATYPES:
        raise bad(f"{where}: datatype must be one of {', '.join(DATATYPES)}, not {shown(datatype)}")
    shape = check_shape(tensor.get("shape"), where)
    size = _parameters(tensor, where).get("binary_data_size")
    if size is None:
        return name, to_array(flatten(tensor.get("data"), shape, where), datatype, shape, where)
    if type(size) is not int or size < 0:
        raise bad(f"{where}: binary_data_size must be a number of bytes, not {shown(size)}")
    if "data" in tensor:
        raise bad(f"{where}: data must not be given where there is a binary_data_size")
    if tail is None:
        raise bad(f"{where}: binary_data_size needs the header inference-header-content-length")
    return name, from_raw(tail.take(size, where), datatype, shape, where)


def _parameters(owner: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = owner.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise bad(f"{where}: parameters must be an object")
    for unsupported in _UNSUPPORTED:
        if unsupported in parameters:
            raise bad(f"{where}: this server has no {unsupported}")
    return parameters


def _flag(owner: dict[str, Any], name: str, default: bool, where: str) -> bool:
    """A parameter that is true or false. Problem(bad_input)."""
    flag = _parameters(owner, where).get(name, default)
    if type(flag) is not bool:
        raise bad(f"{where}: {name} must be true or false, not {shown(flag)}")
    return flag


def _only_input(data: memoryview, metadata: Metadata) -> dict[str, Array]:
    """The body as the model's one input, whose shape follows from the number of bytes. Problem(bad_input)."""
    where = "a body without JSON"
    if len(metadata.inputs) != 1:
        raise bad(f"{where} needs a model that declares one input, this one declares {len(metadata.inputs)}")
    (spec,) = metadata.inputs
    known, unknown = [size for size in spec.shape if size != -1], spec.shape.count(-1)
    if spec.datatype == "BYTES":
        if math.prod(known) != 1:
            raise bad(f"{where} is one element, the model takes BYTES of {list(spec.shape)}")
        return {spec.name: objects([bytes(data)], (1,) * len(spec.shape))}
    if unknown > 1:
        raise bad(f"{where} leaves open which shape of {list(spec.shape)} it has")
    row = math.prod(known) * DATATYPES[spec.datatype].itemsize
    if data.nbytes < row or not row:
        raise bad(f"{where} must have at least {row} bytes for {list(spec.shape)}, not {data.nbytes}")
    shape = [data.nbytes // row if size == -1 else size for size in spec.shape]
    return {spec.name: from_raw(data, spec.datatype, shape, where)}


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


def _outputs(wanted: Any, raw: bool, metadata: Metadata) -> dict[str, bool]:
    """Names of the outputs asked for, and whether each is wanted raw: as it says, or else as the request says."""
    if wanted is None:
        return {}
    if type(wanted) is not list:
        raise bad("outputs must be a list of objects with a name")
    found: dict[str, bool] = {}
    for position, output in enumerate(wanted):
        where = f"outputs[{position}]"
        if type(output) is not dict or type(name := output.get("name")) is not str:
            raise bad(f"{where} must be an object with a name")
        if metadata.outputs and all(name != spec.name for spec in metadata.outputs):
            raise bad(f"{where}: no output {shown(name)}; the model has {_names(metadata.outputs)}")
        if name in found:
            raise bad(f"{where}: output {shown(name)} is there twice")
        found[name] = _flag(output, "binary_data", raw, where)
    return found


def _names(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name!r} ({spec.datatype} {list(spec.shape)})" for spec in specs)


def encode(request: Request, outputs: Tensors, name: str, served: Served) -> Answer:
    """The answer. Problem(bad_input) when an output asked for isn't among what the model answered."""
    answer: dict[str, Any] = {"model_name": name, "model_version": served.version}
    if request.id is not None:
        answer["id"] = request.id
    tail: list[memoryview] = []
    answer["outputs"] = [
        _output(key, raw, outputs, tail)
        for key, raw in (request.outputs or dict.fromkeys(outputs, request.raw)).items()
    ]
    body = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tail:
        return Answer(200, body)
    return Answer(200, body, (OCTETS, (JSON_LENGTH, b"%d" % len(body))), tail)


def _output(name: str, raw: bool, outputs: Tensors, tail: list[memoryview]) -> dict[str, Any]:
    """What the answer says of an output; its bytes go to `tail` if it is to be raw."""
    array = outputs.get(name)
    if array is None:
        raise bad(f"no output {shown(name)}; the model answered {', '.join(map(repr, outputs))}")
    told: dict[str, Any] = {"name": name, "datatype": datatype_of(array), "shape": array.shape}
    if raw:
        data = to_raw(array)
        tail.append(data)
        told["parameters"] = {"binary_data_size": data.nbytes}
    else:
        told["data"] = to_json(array)
    return told


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
