"""What is read of a request's head: deadlines, media types, lengths, priorities."""

from __future__ import annotations

import pytest

from model_server.errors import Code, Problem
from model_server.queues import Priority
from model_server.rest.wire import ALIGNMENT, RequestHead


def head(**fields: str) -> RequestHead:
    return RequestHead.of((name.replace("_", "-").encode(), value.encode()) for name, value in fields.items())


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        pytest.param({}, 10, id="no header: the server's own"),
        pytest.param({"x_request_timeout_ms": "250"}, 0.25, id="a client may ask for less"),
        pytest.param({"x_request_timeout_ms": "60000"}, 10, id="but not for more"),
        pytest.param({"x_request_timeout_ms": "9" * 5000}, 10, id="a number of 5,000 digits is only large"),
        pytest.param({"x_request_timeout_ms": "0"}, 0, id="zero is past"),
        pytest.param({"x_request_timeout_ms": "-5"}, 0, id="negative is past"),
        pytest.param({"x_envoy_expected_rq_timeout_ms": "400"}, 0.4, id="the router's deadline"),
        pytest.param(
            {"x_request_timeout_ms": "300", "x_envoy_expected_rq_timeout_ms": "400"}, 0.3, id="the least of both"
        ),
        pytest.param(
            {"x_inflight_timeout_ms": "200", "x_request_timeout_ms": "9000"}, 0.2, id="the ModelDeployment's own limit"
        ),
        pytest.param({"x_envoy_expected_rq_timeout_ms": "soon"}, 10, id="nonsense of the router counts as absent"),
    ],
)
def test_the_deadline_is_the_earliest_of_all_that_were_given(fields: dict[str, str], seconds: float) -> None:
    assert head(**fields).timeout_seconds(10) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["soon", "1.5", "1e3", "", " 5", "٣"])
def test_a_timeout_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        head(x_request_timeout_ms=text).timeout_seconds(10)
    assert refused.value.code is Code.BAD_REQUEST


RAW = {"content_type": "application/octet-stream", "inference_header_content_length": "10"}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="none"),
        pytest.param({"content_type": "application/json"}, id="JSON"),
        pytest.param({"content_type": "Application/JSON; charset=utf-8"}, id="JSON with parameters"),
        pytest.param({"content_encoding": "identity"}, id="not compressed"),
        pytest.param({"content_encoding": " GZip"}, id="gzip"),
        pytest.param({"content_encoding": "deflate"}, id="deflate"),
        pytest.param(RAW, id="raw tensors"),
        pytest.param({**RAW, "content_type": "application/json"}, id="raw tensors that call themselves JSON"),
    ],
)
def test_json_and_raw_tensors_are_taken_and_may_be_compressed(fields: dict[str, str]) -> None:
    head(**fields).check_media_type(raw=True)


@pytest.mark.parametrize(
    ("fields", "raw", "says"),
    [
        pytest.param({"content_type": "application/x-pickle"}, True, "must be application/json", id="pickle"),
        pytest.param({"content_type": "application/vnd.bentoml+pickle"}, True, "application/json", id="another pickle"),
        pytest.param({"content_type": "multipart/form-data; boundary=x"}, True, "application/json", id="multipart"),
        pytest.param({"content_type": "application/octet-stream"}, True, "needs the header", id="no length of JSON"),
        pytest.param(RAW, False, "must be application/json", id="raw tensors where there are none"),
        pytest.param({"content_encoding": "br"}, True, "not as 'br'", id="brotli"),
        pytest.param({"content_encoding": "br, gzip"}, True, "not as 'br, gzip'", id="nested codings"),
        pytest.param({"content_encoding": "x" * 9000}, True, "xxx", id="a coding of 9,000 letters"),
    ],
)
def test_anything_else_is_refused_by_name(fields: dict[str, str], raw: bool, says: str) -> None:
    with pytest.raises(Problem) as refused:
        head(**fields).check_media_type(raw=raw)
    assert refused.value.code is Code.UNSUPPORTED_MEDIA_TYPE
    assert says in refused.value.detail
    assert len(refused.value.detail) < 200


@pytest.mark.parametrize(
    ("fields", "compressed"),
    [({}, False), ({"content_encoding": "identity"}, False), ({"content_encoding": "Deflate "}, True)],
)
def test_what_came_compressed_is_known(fields: dict[str, str], compressed: bool) -> None:
    assert head(**fields).compressed is compressed


@pytest.mark.parametrize(
    ("fields", "length"),
    [({}, None), ({"inference_header_content_length": "0"}, 0), ({"inference_header_content_length": "17"}, 17)],
)
def test_the_length_of_the_json_before_raw_tensors(fields: dict[str, str], length: int | None) -> None:
    assert head(**fields).json_length() == length
    assert (head(**fields).padding() + (length or 0)) % ALIGNMENT == 0


@pytest.mark.parametrize("text", ["", "-1", "1.5", "0x10", "9" * 19, " 5", "1,2"])
def test_a_length_of_json_that_is_no_number_is_refused(text: str) -> None:
    asked = head(inference_header_content_length=text)
    assert asked.padding() == 0
    with pytest.raises(Problem, match="must be a number of bytes") as refused:
        asked.json_length()
    assert refused.value.code is Code.BAD_REQUEST


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        pytest.param("abc-123", True, id="a good one is kept"),
        pytest.param("x" * 129, False, id="too long"),
        pytest.param("with blank", False, id="a blank"),
        pytest.param("", False, id="empty"),
    ],
)
def test_a_request_id_that_can_be_echoed_is_kept(given: str, echoed: bool) -> None:
    found = head(x_request_id=given).request_id()
    assert (found == given) is echoed
    assert found


@pytest.mark.parametrize(
    ("declared", "code"), [("11", Code.TOO_LARGE), ("9" * 19, Code.BAD_REQUEST), ("x", Code.BAD_REQUEST)]
)
def test_a_declared_length_is_checked_before_anything_is_read(declared: str, code: Code) -> None:
    with pytest.raises(Problem) as refused:
        head(content_length=declared).check_length(10)
    assert refused.value.code is code


@pytest.mark.parametrize(
    ("fields", "priority"),
    [
        pytest.param({}, Priority.NORMAL, id="none"),
        pytest.param({"x_priority": "high"}, Priority.HIGH, id="high"),
        pytest.param({"x_priority": " Low "}, Priority.LOW, id="in any spelling"),
        pytest.param({"x_priority": "urgent!"}, Priority.NORMAL, id="an unknown one counts as none"),
    ],
)
def test_the_priority_is_one_of_three(fields: dict[str, str], priority: Priority) -> None:
    assert head(**fields).priority() is priority
