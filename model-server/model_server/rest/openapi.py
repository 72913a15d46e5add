"""GET /openapi.json: the whole API as OpenAPI 3.1, predictions included, though those never reach FastAPI.

Written by hand, because FastAPI sees only part of it, and its idea of an error isn't ours. The model's name, and an
example made from its inputs, are those of the model that is served. It describes; it decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from model_server import __version__
from model_server.cache.control import Result
from model_server.errors import Code
from model_server.lifecycle import Lifecycle
from model_server.models.tensors import DATATYPES, TensorSpec
from model_server.rest.problems import OCTETS, STATUS
from model_server.rest.tensors import MAX_RANK
from model_server.rest.v2 import MAX_INPUTS
from model_server.rest.wire import JSON_LENGTH

Document = dict[str, Any]

_STRING: Final[Document] = {"type": "string"}
_COUNT: Final[Document] = {"type": "integer", "minimum": 0}
_PARAMETERS: Final[Document] = {"type": ["object", "null"]}

_JSON_LENGTH: Final = JSON_LENGTH.decode()
_OCTETS: Final = OCTETS[1].decode()
_TAIL: Final = "bytes of JSON at the start of an application/octet-stream body; raw tensors follow"
_RAW: Final[Document] = {"description": "JSON as in application/json, then the data of tensors with a binary_data_size"}

_MEANING: Final[dict[Code, str]] = {
    Code.INVALID_JSON: "the body is no JSON",
    Code.BAD_REQUEST: "malformed HTTP, or a header that is no number",
    Code.MODEL_NOT_FOUND: "another model or version is served here",
    Code.BODY_TIMEOUT: "the body did not arrive before the deadline",
    Code.TOO_LARGE: "the body is too large",
    Code.UNSUPPORTED_MEDIA_TYPE: "the body's media type or coding is not one of those that are taken",
    Code.BAD_INPUT: "the body is not what the model takes; `detail` says where",
    Code.QUEUE_FULL: "all places are taken, or the deadline can't be kept: come back after Retry-After",
    Code.MODEL_ERROR: "the model raised an exception",
    Code.WORKER_LOST: "the process that computed it ended or hung; another takes its place",
    Code.INTERNAL: "a bug of this server",
    Code.NOT_READY: "still loading, stopping, or (live) hanging: come back after Retry-After, where it is told",
    Code.DEADLINE: "the deadline passed, in the queue or in the model",
}
_PREDICTING: Final = tuple(_MEANING)
_RETRIED: Final = (STATUS[Code.QUEUE_FULL], STATUS[Code.NOT_READY])


def document(lifecycle: Lifecycle) -> Document:
    """The document as it is now: before the model is loaded it knows no version and no example."""
    name, version = _path("name", lifecycle.name), _path("version", *_versions(lifecycle))
    model, versioned = "/v2/models/{name}", "/v2/models/{name}/versions/{version}"
    paths = {
        "/v2/health/live": _get("live", "The process answers, be it still loading", "Live", Code.NOT_READY),
        "/": _get("live_v1", "The same, as KServe's clients ask by V1", "LiveV1", Code.NOT_READY),
        "/v2/health/ready": _get("ready", "The model is warm and no stop was asked for", "Ready", Code.NOT_READY),
        "/v2": _get("server", "This server's name, version and protocol extensions", "Server"),
        "/v1/models": _get("models_v1", "The one model that is served here", "ModelsV1"),
        "/v1/models/{name}": _get("model_v1", "Whether the model is ready", "ModelReady", Code.MODEL_NOT_FOUND),
        "/v1/models/{name}:predict": _predict("predict_v1", "V1", lifecycle),
    }
    for path, suffix in ((model, ""), (versioned, "_version")):
        missing = (Code.MODEL_NOT_FOUND, Code.NOT_READY)
        paths[path] = _get(f"model{suffix}", "The model's inputs, outputs, platform and digest", "Model", *missing)
        paths[f"{path}/ready"] = _get(f"model_ready{suffix}", "Whether it takes predictions", "ModelReady", *missing)
        paths[f"{path}/infer"] = _predict(f"infer{suffix}", "V2", lifecycle)
    for path, operations in paths.items():
        operations["parameters"] = [p for p in (name, version) if f"{{{p['name']}}}" in path]
    return {
        "openapi": "3.1.0",
        "info": {"title": "inflight model server", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def _versions(lifecycle: Lifecycle) -> tuple[str, ...]:
    return () if lifecycle.served is None else (lifecycle.served.version,)


def _path(name: str, *values: str) -> Document:
    schema = {**_STRING, "minLength": 1, **({"enum": list(values)} if values else {})}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _get(operation: str, summary: str, schema: str, *codes: Code) -> Document:
    return {
        "get": {
            "operationId": operation,
            "summary": summary,
            "responses": _responses(schema, (Code.BAD_REQUEST, *codes, Code.INTERNAL)),
        }
    }


def _predict(operation: str, protocol: str, lifecycle: Lifecycle) -> Document:
    asked: Document = {"application/json": {"schema": _ref(f"Request{protocol}")}}
    if (example := _example(lifecycle, protocol)) is not None:
        asked["application/json"]["example"] = example
    responses = _responses(f"Answer{protocol}", _PREDICTING)
    responses["200"]["headers"].update(_CACHE_HEADER)
    headers = list(_PREDICTION_HEADERS)
    if protocol == "V2":
        asked[_OCTETS] = responses["200"]["content"][_OCTETS] = {"schema": _RAW}
        headers.append(_header(_JSON_LENGTH, _TAIL, _COUNT))
        responses["200"]["headers"][_JSON_LENGTH] = {"description": _TAIL, "schema": _COUNT}
    return {
        "post": {
            "operationId": operation,
            "summary": f"A prediction, by protocol {protocol}",
            "parameters": headers,
            "requestBody": {"required": True, "description": "may be coded as gzip or deflate", "content": asked},
            "responses": responses,
        }
    }


def _responses(schema: str, codes: Iterable[Code]) -> Document:
    """The 200 and the problems, a status each: several codes may share one."""
    responses: Document = {"200": _response("done", "application/json", _ref(schema))}
    for code in codes:
        status, said = str(STATUS[code]), f"`{code.value}`: {_MEANING[code]}"
        if status in responses:
            responses[status]["description"] += f"; {said}"
        else:
            responses[status] = _response(said, "application/problem+json", _ref("Problem"))
            if STATUS[code] in _RETRIED:
                responses[status]["headers"].update(_RETRY_HEADERS)
    return responses


def _response(description: str, media_type: str, schema: Document) -> Document:
    headers = {"x-request-id": {"description": "the request's own, or a new one", "schema": _STRING}}
    return {"description": description, "headers": headers, "content": {media_type: {"schema": schema}}}


def _ref(name: str) -> Document:
    return {"$ref": f"#/components/schemas/{name}"}


def _example(lifecycle: Lifecycle, protocol: str) -> Document | None:
    """A request of zeros that the served model takes, as far as it says what it takes and the sizes are small."""
    specs = lifecycle.served.metadata.inputs if lifecycle.served else ()
    if not specs or any(_size(spec) > _EXAMPLE_ELEMENTS for spec in specs):
        return None
    if protocol == "V2":
        return {"inputs": [_example_tensor(spec) for spec in specs]}
    return {"instances": _nested(specs[0], _shape(specs[0]))} if len(specs) == 1 and specs[0].shape else None


def _example_tensor(spec: TensorSpec) -> Document:
    data = [_zero(spec)] * _size(spec)
    return {"name": spec.name, "datatype": spec.datatype, "shape": _shape(spec), "data": data}


def _shape(spec: TensorSpec) -> list[int]:
    return [max(size, 1) for size in spec.shape]


def _size(spec: TensorSpec) -> int:
    return math.prod(_shape(spec))


def _zero(spec: TensorSpec) -> Any:
    dtype = DATATYPES[spec.datatype]
    return "" if dtype.kind == "O" else dtype.type(0).item()


def _nested(spec: TensorSpec, shape: list[int]) -> Any:
    return [_nested(spec, shape[1:])] * shape[0] if shape else _zero(spec)


def _members(required: str, **properties: Document) -> Document:
    """An object; further members may be added to it."""
    return {"type": "object", "required": required.split(), "properties": properties}


def _tensor(least: int) -> Document:
    """A tensor whose dimensions are at least `least`, with its data or, in its parameters, the size of its raw data."""
    size = {"type": "integer", "minimum": least}
    tensor = _members(
        "name datatype shape",
        name={**_STRING, "minLength": 1},
        datatype={"enum": list(DATATYPES)},
        shape={"type": "array", "items": size, "maxItems": MAX_RANK},
        data={"type": "array", "description": "row-major elements, flat or nested as shape says"},
        parameters=_PARAMETERS,
    )
    return {**tensor, "anyOf": [{"required": ["data"]}, {"required": ["parameters"]}]}


_SPEC: Final = _members("name datatype shape", name=_STRING, datatype=_STRING, shape={"type": "array"})
_NAMES: Final[Document] = {"type": "array", "items": _STRING}
_TENSORS: Final[Document] = {"type": "array", "items": _SPEC}
_EXAMPLE_ELEMENTS: Final = 1000

_SCHEMAS: Final[Document] = {
    "Live": _members("live", live={"const": True}),
    "LiveV1": _members("status", status={"const": "alive"}),
    "Ready": _members("ready", ready={"const": True}),
    "Server": _members("name version extensions", name=_STRING, version=_STRING, extensions=_NAMES),
    "ModelsV1": _members("models", models=_NAMES),
    "ModelReady": _members("name ready", name=_STRING, ready={"type": "boolean"}),
    "Model": _members(
        "name versions platform inputs outputs",
        name=_STRING,
        versions=_NAMES,
        platform=_STRING,
        inputs=_TENSORS,
        outputs=_TENSORS,
        parameters=_members("sha256", sha256=_STRING),
    ),
    "RequestV2": _members(
        "inputs",
        id={"type": ["string", "null"], "maxLength": 1024},
        parameters=_PARAMETERS,
        inputs={"type": "array", "minItems": 1, "maxItems": MAX_INPUTS, "items": _ref("InputTensor")},
        outputs={"type": ["array", "null"], "items": _members("name", name=_STRING, parameters=_PARAMETERS)},
    ),
    "InputTensor": _tensor(1),
    "AnswerV2": _members(
        "model_name model_version outputs",
        model_name=_STRING,
        model_version=_STRING,
        id=_STRING,
        outputs={"type": "array", "items": _ref("OutputTensor")},
    ),
    "OutputTensor": _tensor(0),
    "RequestV1": _members("instances", instances={"type": "array", "minItems": 1, "description": "one per row"}),
    "AnswerV1": _members("predictions", predictions={"description": "a row each, or the outputs by name"}),
    "Problem": _members(
        "type title status detail code error request_id",
        type=_STRING,
        title=_STRING,
        status={"type": "integer", "minimum": 400, "maximum": 599},
        detail=_STRING,
        code={"enum": [code.value for code in Code if code is not Code.CANCELLED]},
        error={**_STRING, "description": "detail once more, where V2 clients look for it"},
        request_id=_STRING,
    ),
}

_RETRY_HEADERS: Final[Document] = {
    "retry-after": {"description": "whole seconds", "schema": _COUNT},
    "x-inflight-retry-after-ms": {"description": "the same, exactly", "schema": _COUNT},
}


_CACHE_HEADER: Final[Document] = {
    "x-inflight-cache": {
        "description": "where the answer came from, on a server that keeps answers",
        "schema": {"enum": [result.value for result in Result]},
    }
}


def _header(name: str, description: str, schema: Document) -> Document:
    return {"name": name, "in": "header", "description": description, "schema": schema}


_PREDICTION_HEADERS: Final = (
    _header("x-request-timeout-ms", "lowers the server's timeout", {"type": "integer", "minimum": 1}),
    _header("x-priority", "who is served first, and refused last", {"enum": ["high", "normal", "low"]}),
    _header("cache-control", "no-cache: compute it anew; no-store: don't keep it; max-age=SECONDS", _STRING),
    _header("x-request-id", "echoed, and logged", {**_STRING, "pattern": "^[\\x21-\\x7e]{1,128}$"}),
)
