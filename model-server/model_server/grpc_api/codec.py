"""Prediction requests and answers between messages and arrays. Parses and checks; computes nothing."""

from __future__ import annotations

from dataclasses import dataclass

from model_server.grpc_api import framing, tensors
from model_server.grpc_api.messages import ModelInferRequest, ModelInferResponse
from model_server.lifecycle import Served
from model_server.models.base import Metadata
from model_server.models.tensors import DATATYPES, Array, Tensors
from model_server.rest.raw import from_raw, to_raw
from model_server.rest.tensors import bad, check_shape, shown
from model_server.rest.v2 import check_inputs


@dataclass(frozen=True, slots=True)
class Request:
    """A checked request, but for its inputs."""

    message: ModelInferRequest
    raw: bool
    """Whether its tensors came raw; they are answered as they came."""


def decode(message: ModelInferRequest, raw: list[memoryview], metadata: Metadata) -> tuple[Request, Tensors]:
    """The request and its inputs, which fit `metadata`. Problem(bad_input)."""
    if not message.inputs:
        raise bad("inputs must have at least one tensor")
    if raw and len(raw) != len(message.inputs):
        raise bad(f"there are {len(message.inputs)} inputs, but raw_input_contents of {len(raw)}")
    inputs: dict[str, Array] = {}
    for position, tensor in enumerate(message.inputs):
        if tensor.name in inputs:
            raise bad(f"input {shown(tensor.name)} is there twice")
        inputs[tensor.name] = _input(tensor, raw[position] if raw else None, f"inputs[{position}]")
    check_inputs(inputs, metadata)
    _check_outputs(message, metadata)
    return Request(message, bool(raw)), inputs


def _input(tensor: ModelInferRequest.InferInputTensor, raw: memoryview | None, where: str) -> Array:
    if not tensor.name:
        raise bad(f"{where}: name must not be empty")
    if tensor.datatype not in DATATYPES:
        raise bad(f"{where}: datatype must be one of {', '.join(DATATYPES)}, not {shown(tensor.datatype)}")
    shape = check_shape(list(tensor.shape), where)
    if raw is None:
        return tensors.from_contents(tensor.contents, tensor.datatype, shape, where)
    if tensor.HasField("contents"):
        raise bad(f"{where}: contents must be empty where there are raw_input_contents")
    return from_raw(raw, tensor.datatype, shape, where)


def _check_outputs(message: ModelInferRequest, metadata: Metadata) -> None:
    names = [spec.name for spec in metadata.outputs]
    for position, output in enumerate(message.outputs):
        if names and output.name not in names:
            there = ", ".join(map(repr, names))
            raise bad(f"outputs[{position}]: no output {shown(output.name)}; the model has {there}")


def encode(request: Request, outputs: Tensors, served: Served) -> bytes:
    """The answer's bytes. Problem: bad_input (an output that the model didn't answer), model_error."""
    message = request.message
    answer = ModelInferResponse(model_name=message.model_name, model_version=served.version, id=message.id)
    arrays = [_output(name, outputs) for name in [output.name for output in message.outputs] or outputs]
    raw = request.raw or not all(tensors.has_contents(datatype) for _, datatype, _ in arrays)
    for name, datatype, array in arrays:
        output = answer.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if not raw:
            output.contents.CopyFrom(tensors.to_contents(array, datatype))
    return framing.join(answer, [to_raw(array) for _, _, array in arrays] if raw else ())


def _output(name: str, outputs: Tensors) -> tuple[str, str, Array]:
    array = outputs.get(name)
    if array is None:
        raise bad(f"no output {shown(name)}; the model answered {', '.join(map(repr, outputs))}")
    return name, tensors.datatype(array, name), array
