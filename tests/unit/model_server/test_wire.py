"""What is read of a request: deadlines, media types, and bodies bounded in bytes and time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from model_server.errors import Code, Problem
from model_server.rest import wire
from model_server.rest.wire import ClientLeftError, RequestHead


def head(**fields: str) -> RequestHead:
    return RequestHead.of({"headers": [(name.replace("_", "-").encode(), v.encode()) for name, v in fields.items()]})


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


@pytest.mark.parametrize(
    ("fields", "accepted"),
    [
        pytest.param({}, True, id="none"),
        pytest.param({"content_type": "application/json"}, True, id="JSON"),
        pytest.param({"content_type": "Application/JSON; charset=utf-8"}, True, id="JSON with parameters"),
        pytest.param({"content_encoding": "identity"}, True, id="identity"),
        pytest.param({"content_type": "application/x-pickle"}, False, id="pickle"),
        pytest.param({"content_type": "application/vnd.bentoml+pickle"}, False, id="pickle with a vendor's name"),
        pytest.param({"content_type": "multipart/form-data; boundary=x"}, False, id="multipart"),
        pytest.param({"content_type": "application/octet-stream"}, False, id="binary tensors"),
        pytest.param({"content_encoding": "gzip"}, False, id="gzip"),
        pytest.param({"content_encoding": "br, gzip"}, False, id="nested encodings"),
    ],
)
def test_only_plain_json_is_taken(fields: dict[str, str], accepted: bool) -> None:
    if accepted:
        head(**fields).check_media_type()
    else:
        with pytest.raises(Problem) as refused:
            head(**fields).check_media_type()
        assert refused.value.code is Code.UNSUPPORTED_MEDIA_TYPE


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


class Parts:
    """An ASGI `receive` that hands out body parts, and then either waits or says that the client left."""

    def __init__(self, parts: Sequence[bytes], *, complete: bool = True, leaves: bool = False) -> None:
        self.parts, self.complete, self.leaves, self.read = list(parts), complete, leaves, 0

    async def __call__(self) -> Any:
        await asyncio.sleep(0)  # every part arrives by itself
        if self.parts:
            part = self.parts.pop(0)
            self.read += len(part)
            return {"type": "http.request", "body": part, "more_body": bool(self.parts) or not self.complete}
        if self.leaves:
            return {"type": "http.disconnect"}
        return await asyncio.Event().wait()  # for ever


async def read(receive: Any, limit: int = 10, seconds: float = 5, **fields: str) -> bytes:
    deadline = asyncio.get_running_loop().time() + seconds
    return await wire.read_body(receive, head(**fields), limit, deadline)


@pytest.mark.parametrize("parts", [[b"0123456789"], [b"01234", b"56789"], [b""], [b"x"] * 10])
async def test_a_body_may_come_in_any_number_of_parts(parts: list[bytes]) -> None:
    assert await read(Parts(parts)) == b"".join(parts)


async def test_a_declared_length_over_the_limit_is_refused_before_anything_is_read() -> None:
    receive = Parts([b"x" * 11])
    with pytest.raises(Problem) as refused:
        await read(receive, content_length="11")
    assert refused.value.code is Code.TOO_LARGE
    assert receive.read == 0


async def test_an_undeclared_length_is_refused_at_the_limit() -> None:
    receive = Parts([b"x" * 4] * 1000)
    with pytest.raises(Problem) as refused:
        await read(receive)
    assert refused.value.code is Code.TOO_LARGE
    assert receive.read <= 14


async def test_a_body_that_stops_coming_ends_at_the_deadline() -> None:
    with pytest.raises(Problem) as refused:
        await read(Parts([b"x"], complete=False), seconds=0.02)
    assert refused.value.code is Code.BODY_TIMEOUT


async def test_a_client_that_leaves_within_its_body_is_noticed() -> None:
    with pytest.raises(ClientLeftError):
        await read(Parts([b"x"], complete=False, leaves=True))


async def test_looking_whether_the_client_left_neither_waits_nor_takes_anything() -> None:
    disconnected = asyncio.Event()

    async def receive() -> Any:
        await disconnected.wait()
        return {"type": "http.disconnect"}

    assert not wire.has_left(receive)
    disconnected.set()
    assert wire.has_left(receive)
