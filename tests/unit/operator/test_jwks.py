"""Key sets: nothing but public keys for signatures comes out, whatever goes in."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from inflight_operator.api.jwks import public_keys

RSA = {"kty": "RSA", "n": "modulus", "e": "AQAB"}
EC = {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}
ED25519 = {"kty": "OKP", "crv": "Ed25519", "x": "x"}


def written(*keys: Any) -> str:
    return json.dumps({"keys": keys})


def read(*keys: Any) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(public_keys(written(*keys)))["keys"]
    return found


@pytest.mark.parametrize("key", [RSA, EC, ED25519], ids=["RSA", "EC", "OKP"])
def test_a_public_key_is_kept_with_what_describes_it(key: dict[str, str]) -> None:
    described = {**key, "kid": "one", "alg": "X", "use": "sig"}
    assert read(described, key) == [described, key]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"kty": "oct", "k": "secret"}, id="symmetric"),
        pytest.param({**RSA, "use": "enc"}, id="for encryption"),
        pytest.param({"kty": "RSA", "n": "modulus"}, id="incomplete"),
        pytest.param({**RSA, "n": 7}, id="of the wrong type"),
        pytest.param({"kty": "of tomorrow"}, id="unknown"),
        pytest.param({}, id="empty"),
    ],
)
def test_other_keys_are_left_out(other: dict[str, Any]) -> None:
    assert read(other, EC) == [EC]
    with pytest.raises(ValueError, match="no public key"):
        public_keys(written(other))


def test_of_a_private_key_only_the_public_part_is_kept() -> None:
    assert read({**EC, "d": "private", "x5c": ["certificate"]}) == [EC]


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", '{"keys": 7}', '{"keys": [7]}', '{"keys": [{"kty": []}]}', b"\xff", "[" * 100_000],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_set_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="not a set"):
        public_keys(text)


def test_a_set_may_be_long_but_not_endless() -> None:
    large = {**RSA, "n": "n" * 683, "kid": "k" * 40}  # 4096 bits
    assert len(read(*[large] * 20)) == 20
    with pytest.raises(ValueError, match="16384 are the most"):
        public_keys(written(*[large] * 22))


ANYTHING = st.none() | st.integers() | st.sampled_from(["RSA", "oct", "sig", "x"]) | st.lists(st.none(), max_size=1)
MEMBERS = st.dictionaries(st.sampled_from(["kty", "use", "n", "e", "kid", "d", "k"]), ANYTHING)
SOMETHING_LIKE_A_KEY = st.builds(lambda key, more: {**key, **more}, st.sampled_from([RSA, EC, ED25519, {}]), MEMBERS)


@given(st.lists(SOMETHING_LIKE_A_KEY, max_size=4))
def test_whatever_is_sent_the_answer_is_safe_and_reads_as_itself(keys: list[Any]) -> None:
    try:
        safe = public_keys(written(*keys))
    except ValueError:
        return
    assert public_keys(safe) == safe
    assert not {"d", "k"} & {part for key in json.loads(safe)["keys"] for part in key}
