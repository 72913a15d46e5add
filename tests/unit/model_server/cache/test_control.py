"""Cache-Control of a request, as RFC 9111 has it."""

from __future__ import annotations

import math

import pytest

from model_server.cache.control import Use


@pytest.mark.parametrize(
    ("header", "read", "write", "max_age"),
    [
        pytest.param(None, True, True, math.inf, id="no header"),
        pytest.param(b"", True, True, math.inf, id="nothing in it"),
        pytest.param(b"no-cache", False, True, math.inf, id="computed anew, and kept"),
        pytest.param(b"no-store", True, False, math.inf, id="what is kept may be used, the answer not kept"),
        pytest.param(b"No-Cache , NO-STORE", False, False, math.inf, id="neither, in any case"),
        pytest.param(b"max-age=60", True, True, 60, id="a minute old at most"),
        pytest.param(b'max-age="60", max-age=5', True, True, 5, id="quoted, and twice: the stricter one"),
        pytest.param(b"max-age=0", False, True, 0, id="of no age"),
        pytest.param(b"max-age=soon", False, True, 0, id="an age that is no number is rather too fresh"),
        pytest.param(b"max-age=" + b"9" * 5000, True, True, 9_999_999_999, id="an age of 5,000 digits"),
        pytest.param(b"no-transform, min-fresh=3, x=y,,=", True, True, math.inf, id="what isn't known is ignored"),
        pytest.param(b"no-cache=x-field", False, True, math.inf, id="arguments that requests don't have"),
    ],
)
def test_what_a_request_allows(header: bytes | None, read: bool, write: bool, max_age: float) -> None:
    use = Use.asked(header)
    assert (use.read, use.write, use.max_age, use.result) == (read, write, max_age, None)
