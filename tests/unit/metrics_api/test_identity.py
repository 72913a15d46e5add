"""Only the front proxy's certificate makes X-Remote-* headers true."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from inflight_operator.errors import InflightError
from inflight_operator.metrics_api.identity import FrontProxy, User

CONFIG_MAP = {
    "client-ca-file": "PEM of the clients' authority, which is nobody's business here",
    "requestheader-client-ca-file": "PEM",
    "requestheader-allowed-names": json.dumps(["front-proxy", "aggregator"]),
    "requestheader-username-headers": json.dumps(["X-Remote-User"]),
    "requestheader-group-headers": json.dumps(["X-Remote-Group"]),
    "requestheader-extra-headers-prefix": json.dumps(["X-Remote-Extra-"]),
}


def certificate(*common_names: str) -> dict[str, Any]:
    """What ssl.getpeercert() says of a certificate."""
    names = tuple((("commonName", name),) for name in common_names)
    return {"subject": ((("organizationName", "front-proxy"),), *names)}


@pytest.mark.parametrize(
    ("presented", "vouched"),
    [
        pytest.param(None, False, id="no-certificate"),
        pytest.param({}, False, id="certificate-that-was-not-verified"),
        pytest.param(certificate("front-proxy"), True, id="allowed-name"),
        pytest.param(certificate("aggregator"), True, id="other-allowed-name"),
        pytest.param(certificate("somebody"), False, id="other-name-signed-by-the-same-authority"),
        pytest.param(certificate(), False, id="no-common-name-though-an-organisation-of-that-name"),
    ],
)
def test_only_an_allowed_certificate_vouches(presented: dict[str, Any] | None, vouched: bool) -> None:
    assert FrontProxy.from_config_map(CONFIG_MAP).vouches(presented) is vouched


def test_without_allowed_names_any_certificate_of_the_authority_vouches() -> None:
    proxy = FrontProxy.from_config_map({**CONFIG_MAP, "requestheader-allowed-names": "[]"})
    assert proxy.vouches(certificate("whoever"))
    assert not proxy.vouches(None)


def test_the_user_is_read_from_the_headers() -> None:
    headers = CIMultiDict(
        [
            ("x-remote-user", "system:serviceaccount:kube-system:horizontal-pod-autoscaler"),
            ("X-Remote-Group", "system:serviceaccounts"),
            ("X-Remote-Group", "system:authenticated"),
            ("X-Remote-Extra-Example.com%2fScope", "one"),
            ("X-Remote-Extra-Example.com%2fScope", "two"),
        ]
    )
    assert FrontProxy.from_config_map(CONFIG_MAP).user(headers) == User(
        "system:serviceaccount:kube-system:horizontal-pod-autoscaler",
        ("system:serviceaccounts", "system:authenticated"),
        {"example.com/scope": ("one", "two")},
    )


def test_a_request_that_names_nobody_has_no_user() -> None:
    assert FrontProxy.from_config_map(CONFIG_MAP).user(CIMultiDict({"X-Remote-User": ""})) is None


def test_the_cluster_chooses_the_header_names() -> None:
    proxy = FrontProxy.from_config_map({**CONFIG_MAP, "requestheader-username-headers": '["X-Caller"]'})
    assert proxy.user(CIMultiDict({"X-Remote-User": "root"})) is None
    assert proxy.user(CIMultiDict({"X-Caller": "ada"})) == User("ada")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param({}, "aggregation layer is off", id="no-front-proxy"),
        pytest.param({**CONFIG_MAP, "requestheader-allowed-names": "front-proxy"}, "is not JSON", id="not-json"),
    ],
)
def test_a_config_map_that_cannot_be_used_says_why(data: dict[str, str], told: str) -> None:
    with pytest.raises(InflightError, match=told):
        FrontProxy.from_config_map(data)
