"""gRPC messages and arrays: every datatype both ways, hostile bytes, and the wire format of the published protocol."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_server.errors import Code, Problem
from model_server.grpc_api import codec, framing, messages, tensors
from model_server.grpc_api.messages import InferTensorContents, ModelInferRequest, ModelInferResponse
from model_server.lifecycle import Served
from model_server.models.base import Metadata
from model_server.models.tensors import DATATYPES, Array
from model_serving import DIGEST, VERSION, spec
from tensor_samples import sample

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # tritonclient's messages were made for an older protobuf
    from tritonclient.grpc import service_pb2 as published

OURS = sorted(name for name in vars(messages) if name.endswith(("Request", "Response", "Parameter", "Contents")))


@pytest.mark.parametrize("name", OURS)
def test_messages_are_the_published_ones_on_the_wire(name: str) -> None:
    ours, theirs = getattr(messages, name).DESCRIPTOR, getattr(published, name).DESCRIPTOR
    assert fields(ours) == fields(theirs)


def fields(message: Any) -> dict[str, Any]:
    """Numbers and types of the fields, those of nested messages too."""
    nested = {inner.name: fields(inner) for inner in message.nested_types}
    return nested | {field.name: (field.number, field.type, field.is_repeated) for field in message.fields}


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "FP16"])
def test_every_datatype_but_fp16_travels_in_typed_contents(datatype: str) -> None:
    array = sample(datatype)
    back = tensors.from_contents(tensors.to_contents(array, datatype), datatype, [3, 1], "x")
    assert (back.dtype, back.shape, back.tolist()) == (array.dtype, array.shape, array.tolist())


HUGE = [2**40, 2**40]


@pytest.mark.parametrize(
    ("contents", "datatype", "shape", "says"),
    [
        pytest.param({"fp32_contents": [1.0]}, "FP32", [2], "needs 2 elements, fp32_contents has 1", id="too few"),
        pytest.param({"int_contents": [1]}, "INT64", [1], "int64_contents has 0", id="another field"),
        pytest.param({"int_contents": [300]}, "INT8", [1], "does not fit INT8", id="too large"),
        pytest.param({"uint_contents": [70000]}, "UINT16", [1], "does not fit UINT16", id="too large, unsigned"),
        pytest.param({"fp32_contents": [1.0]}, "FP16", [1], "must come in raw_input_contents", id="FP16"),
        pytest.param({"fp32_contents": [1.0]}, "FP32", HUGE, "fp32_contents has 1", id="a huge shape"),
    ],
)
def test_typed_contents_that_do_not_fit_are_refused(
    contents: dict[str, Any], datatype: str, shape: list[int], says: str
) -> None:
    with pytest.raises(Problem) as refused:
        tensors.from_contents(InferTensorContents(**contents), datatype, shape, "inputs[0]")
    assert refused.value.code is Code.BAD_INPUT
    assert says in refused.value.detail


METADATA = Metadata("test", (spec("x", "FP32", -1),), (spec("y", "FP32", -1),))
RAW = np.ones(1, "<f4").tobytes()


def asked(*inputs: dict[str, Any], **fields: Any) -> ModelInferRequest:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1]}
    return ModelInferRequest(model_name="m", inputs=inputs or [tensor], **fields)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        pytest.param(asked(raw_input_contents=[RAW, RAW]), "raw_input_contents of 2", id="one too many"),
        pytest.param(
            asked(
                {"name": "x", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [1.0]}},
                raw_input_contents=[RAW],
            ),
            "contents must be empty",
            id="both kinds",
        ),
        pytest.param(asked({"name": "x", "datatype": "FP8", "shape": [1]}), "datatype must be one of", id="datatype"),
        pytest.param(asked({"name": "", "datatype": "FP32", "shape": [1]}), "name must not be empty", id="no name"),
        pytest.param(asked({"name": "x", "datatype": "FP32", "shape": [-1]}), "at least 1", id="negative"),
        pytest.param(asked({"name": "x", "datatype": "FP32", "shape": [1] * 33}), "33 dimensions", id="rank"),
        pytest.param(
            asked(*[{"name": "x", "datatype": "FP32", "shape": [1]}] * 2, raw_input_contents=[RAW] * 2),
            "there twice",
            id="twice",
        ),
        pytest.param(asked({"name": "z", "datatype": "FP32", "shape": [1]}, raw_input_contents=[RAW]), "'x'", id="z"),
    ],
)
def test_a_message_that_is_no_request_of_the_model_is_refused(message: ModelInferRequest, says: str) -> None:
    with pytest.raises(Problem) as refused:
        codec.decode(*framing.parse(message.SerializeToString()), METADATA)
    assert refused.value.code is Code.BAD_INPUT
    assert says in refused.value.detail


def test_an_output_without_typed_contents_makes_the_whole_answer_raw() -> None:
    request = codec.Request(asked(), raw=False)
    served = Served(METADATA, None, DIGEST, VERSION)  # type: ignore[arg-type]
    outputs = {"y": np.ones(1, np.float32), "z": np.ones(1, np.float16)}
    answer = ModelInferResponse.FromString(codec.encode(request, outputs, served))
    assert [len(raw) for raw in answer.raw_output_contents] == [4, 2]
    assert not any(output.HasField("contents") for output in answer.outputs)


@pytest.mark.parametrize(
    ("outputs", "code"),
    [({"y": np.ones(1, complex)}, Code.MODEL_ERROR), ({"z": np.ones(1)}, Code.BAD_INPUT)],
    ids=["a type that the protocol lacks", "an output that the model didn't answer"],
)
def test_answers_that_cannot_be_given_are_problems(outputs: dict[str, Array], code: Code) -> None:
    request = codec.Request(asked(outputs=[{"name": "y"}]), raw=True)
    with pytest.raises(Problem) as refused:
        codec.encode(request, outputs, Served(METADATA, None, DIGEST, VERSION))  # type: ignore[arg-type]
    assert refused.value.code is code


REQUESTS = st.builds(
    lambda name, raws, shape: ModelInferRequest(
        model_name=name,
        id=name,
        parameters={"p": messages.InferParameter(double_param=1.5)},  # type: ignore[attr-defined]
        inputs=[{"name": "x", "datatype": "FP32", "shape": shape}],
        raw_input_contents=raws,
    ),
    st.text(max_size=20),
    st.lists(st.binary(max_size=300), max_size=4),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
)


def check_parsed(body: bytes) -> None:
    """What framing reads is what protobuf reads."""
    message, raw = framing.parse(body)
    expected = ModelInferRequest.FromString(body)
    assert [bytes(part) for part in raw] == list(expected.raw_input_contents)
    del expected.raw_input_contents[:]
    assert message == expected


@given(REQUESTS, REQUESTS)
def test_cutting_out_the_raw_contents_loses_nothing(first: ModelInferRequest, second: ModelInferRequest) -> None:
    check_parsed(first.SerializeToString() + second.SerializeToString())  # messages concatenate: fields in any order


@given(st.one_of(st.binary(max_size=200), st.builds(lambda r, n: r.SerializeToString()[:n], REQUESTS, st.integers(0))))
def test_any_bytes_are_parsed_as_protobuf_does_or_refused(body: bytes) -> None:
    with contextlib.suppress(Problem):
        check_parsed(body)


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_an_answer_with_raw_contents_behind_it_is_one_message(raws: list[bytes]) -> None:
    answer = ModelInferResponse(model_name="m", outputs=[{"name": "y", "datatype": "FP32", "shape": [1]}])
    expected = ModelInferResponse.FromString(answer.SerializeToString())
    expected.raw_output_contents.extend(raws)
    assert ModelInferResponse.FromString(framing.join(answer, raws)) == expected
