"""Who may ask: from what the owner writes to the issuers on the routes."""

from __future__ import annotations

from typing import Any

import pytest

from inflight_operator.api.jwks import Keys
from inflight_operator.api.spec import Access, ExternalIssuer, access_of
from inflight_operator.decide.access import decide
from inflight_operator.desired import access
from inflight_operator.errors import SpecError
from inflight_operator.keyring import KeyRing
from inflight_operator.steps.access import Access as Step
from inflight_operator.xds.model import Issuer

KEY = ("demo", "digits")
KEYS = '{"keys": [{"crv": "P-256", "kty": "EC", "x": "x", "y": "y"}]}'
URI = "https://login.example/keys"
OWN = Access(("demo/*",), None)
RUNNER = Access(("batch/runner",), None)
EXTERNAL = ExternalIssuer("https://login.example/", ("models",), KEYS, "")
ELSEWHERE = ExternalIssuer("https://login.example/", ("models",), "", URI)


def jwt(**fields: Any) -> dict[str, Any]:
    return {"traffic": {"access": {"jwt": {"issuer": "https://login.example/", "audiences": ["models"], **fields}}}}


@pytest.mark.parametrize(
    ("spec", "read"),
    [
        pytest.param({}, None, id="no traffic"),
        pytest.param({"traffic": {}}, None, id="no access"),
        pytest.param({"traffic": {"access": {}}}, Access((), None), id="nobody named"),
        pytest.param({"traffic": {"access": {"serviceAccounts": ["batch/runner"]}}}, RUNNER, id="an account"),
        pytest.param(jwt(jwks=KEYS), Access((), EXTERNAL), id="an issuer with keys"),
        pytest.param(jwt(jwksUri=URI), Access((), ELSEWHERE), id="an issuer with keys elsewhere"),
    ],
)
def test_what_the_owner_writes(spec: dict[str, Any], read: Access | None) -> None:
    assert access_of(spec) == read


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        pytest.param(jwt(), "spec.traffic.access.jwt", id="no keys"),
        pytest.param(jwt(jwks=KEYS, jwksUri=URI), "spec.traffic.access.jwt", id="keys twice"),
        pytest.param(jwt(jwks='{"keys": []}'), "spec.traffic.access.jwt.jwks", id="no key in the set"),
        pytest.param(jwt(jwks='{"keys":'), "spec.traffic.access.jwt.jwks", id="no set"),
        pytest.param({"traffic": {"access": {"jwt": {"jwks": KEYS}}}}, "spec.traffic.access.jwt", id="no issuer"),
    ],
)
def test_a_mistake_names_the_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as refused:
        access_of(spec)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("asked", "when_open", "when_closed"),
    [
        pytest.param(None, None, OWN, id="not set"),
        pytest.param(Access((), None), OWN, OWN, id="nobody named"),
        pytest.param(RUNNER, RUNNER, RUNNER, id="accounts"),
        pytest.param(Access((), EXTERNAL), Access((), EXTERNAL), Access((), EXTERNAL), id="an issuer"),
    ],
)
def test_who_may_ask(asked: Access | None, when_open: Access | None, when_closed: Access | None) -> None:
    assert decide("demo", asked, closed=False) == when_open
    assert decide("demo", asked, closed=True) == when_closed


CLUSTER = Keys("the cluster's", "https://kubernetes.default.svc")
ACCOUNTS = ("inflight", "inflight/demo/digits")


@pytest.mark.parametrize(
    ("allowed", "known", "issuers"),
    [
        pytest.param(None, {}, None, id="everybody"),
        pytest.param(
            Access(("demo/*", "batch/runner"), None),
            {access.CLUSTER: CLUSTER},
            [
                Issuer(
                    "https://kubernetes.default.svc",
                    ACCOUNTS,
                    "the cluster's",
                    ("system:serviceaccount:demo:*", "system:serviceaccount:batch:runner"),
                )
            ],
            id="accounts",
        ),
        pytest.param(
            RUNNER,
            {},
            [Issuer("cluster", ACCOUNTS, "", ("system:serviceaccount:batch:runner",))],
            id="accounts, keys not known: nobody",
        ),
        pytest.param(Access((), EXTERNAL), {}, [Issuer("https://login.example/", ("models",), KEYS)], id="an issuer"),
        pytest.param(
            Access((), ELSEWHERE),
            {URI: Keys("theirs")},
            [Issuer("https://login.example/", ("models",), "theirs")],
            id="an issuer with keys elsewhere",
        ),
        pytest.param(
            Access((), ELSEWHERE),
            {},
            [Issuer("https://login.example/", ("models",), "")],
            id="keys not known: nobody",
        ),
    ],
)
def test_what_the_routes_ask_for(allowed: Access | None, known: dict[str, Keys], issuers: list[Issuer] | None) -> None:
    found = access.issuers(KEY, allowed, known.get)
    assert found == (None if issuers is None else tuple(issuers))


def test_accounts_come_before_the_issuer() -> None:
    """The router tells 403 from 401 by it."""
    both = access.issuers(KEY, Access(("demo/*",), EXTERNAL), {access.CLUSTER: CLUSTER}.get)
    assert both is not None
    assert [issuer.subjects is not None for issuer in both] == [True, False]


@pytest.mark.parametrize(
    ("allowed", "sources"),
    [
        pytest.param(None, set(), id="everybody"),
        pytest.param(OWN, {"cluster"}, id="accounts"),
        pytest.param(Access((), EXTERNAL), set(), id="keys given"),
        pytest.param(Access((), ELSEWHERE), {URI}, id="keys elsewhere"),
        pytest.param(Access(("demo/*",), ELSEWHERE), {"cluster", URI}, id="both"),
    ],
)
def test_which_keys_have_to_be_read(allowed: Access | None, sources: set[str]) -> None:
    assert access.sources(allowed) == sources


async def _no_keys(source: str) -> Keys:
    raise AssertionError(f"{source} is not asked for here")


def test_what_can_not_be_understood_is_closed_to_all_but_its_own_namespace() -> None:
    """The routes of a refused spec are kept, and with them what they ask for."""
    gate = Step(KeyRing(_no_keys, lambda _key: None), closed=False).step(KEY, jwt(jwks='{"keys":'))
    assert gate.issuers is not None
    assert [issuer.subjects for issuer in gate.issuers] == [("system:serviceaccount:demo:*",)]
