"""Who may ask: tokens of every kind at a real Envoy."""

from __future__ import annotations

import time
from dataclasses import replace

import grpc
import pytest

from edge_tokens import CLUSTER, Issuer
from inflight_operator.xds import model
from inflight_operator.xds.model import RouteSpec
from route_specs import backend, route_spec
from router_rig import Answer, Rig

KEY = ("demo", "digits")
US, OTHERS, EXTERNAL = Issuer(), Issuer(), Issuer("https://login.example")
HOUR = 3600


def accounts(keys: str = US.keys) -> model.Issuer:
    """The cluster's service accounts: those of demo, and one of another namespace."""
    allowed = "system:serviceaccount:demo:*", "system:serviceaccount:batch:runner"
    return model.Issuer(CLUSTER, ("inflight", "inflight/demo/digits"), keys, allowed)


EVERYBODY_OF_EXTERNAL = model.Issuer(EXTERNAL.name, ("models",), EXTERNAL.keys)


def closed(*issuers: model.Issuer, port: int = 9) -> RouteSpec:
    return replace(route_spec(backend(ports=[port])), access=issuers or (accounts(),))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def after(seconds: int) -> int:
    return int(time.time()) + seconds


TOKENS = [
    pytest.param({}, 401, id="none"),
    pytest.param({"Authorization": ""}, 401, id="empty header"),
    pytest.param({"Authorization": "Basic dXNlcjpwYXNzd29yZA=="}, 401, id="user and password"),
    pytest.param(bearer("garbage"), 401, id="garbage"),
    pytest.param(bearer("e30.e30.e30"), 401, id="empty parts"),
    pytest.param(bearer(US.token()), 200, id="good"),
    pytest.param(bearer(US.token(aud="inflight")), 200, id="audience not in a list"),
    pytest.param(bearer(US.token(aud=["x", "inflight/demo/digits"])), 200, id="audience of this one only"),
    pytest.param(bearer(US.token("system:serviceaccount:batch:runner")), 200, id="of another namespace, named"),
    pytest.param(bearer(US.token("system:serviceaccount:batch:other")), 403, id="of another namespace, not named"),
    pytest.param(bearer(US.token("system:serviceaccount:batch:runner-2")), 403, id="name that only begins so"),
    pytest.param(bearer(US.token("system:serviceaccount:demo2:client")), 403, id="namespace that only begins so"),
    pytest.param(bearer(US.token("system:node:demo")), 403, id="no service account"),
    pytest.param(bearer(US.token("")), 403, id="nobody"),
    pytest.param(bearer(US.token(exp=after(-HOUR))), 401, id="expired"),
    pytest.param(bearer(US.token(exp=None)), 401, id="never expires"),
    pytest.param(bearer(US.token(nbf=after(HOUR))), 401, id="not valid yet"),
    pytest.param(bearer(US.token(aud=["https://kubernetes.default.svc"])), 401, id="for the API server"),
    pytest.param(bearer(US.token(aud=["inflight/demo/other"])), 401, id="for another ModelDeployment"),
    pytest.param(bearer(US.token(aud=None)), 401, id="for nobody"),
    pytest.param(bearer(US.token(iss="https://login.example")), 401, id="names another issuer"),
    pytest.param(bearer(US.token(iss=None)), 401, id="names no issuer"),
    pytest.param(bearer(OTHERS.token()), 401, id="signed by another key"),
    pytest.param(bearer(US.signed(US.payload("system:serviceaccount:demo:client"), "none")), 401, id="alg none"),
    pytest.param(
        bearer(US.signed(US.payload("system:serviceaccount:demo:client"), "HS256")), 401, id="HS256 with the public key"
    ),
    pytest.param(bearer(US.token() + "A"), 401, id="spoilt signature"),
    pytest.param({"Authorization": f"bearer{US.token()}"}, 401, id="scheme without a space"),
    pytest.param({"X-Access-Token": US.token()}, 401, id="in another header"),
]


def is_refusal(answer: Answer, status: int) -> bool:
    code = {401: "unauthenticated", 403: "forbidden"}[status]
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "detail", "error"} <= answer.body.keys()
    assert ("www-authenticate" in answer.headers) == (status == 401)
    return (answer.status, answer.body["status"], answer.body["code"]) == (status, status, code)


async def test_every_kind_of_token(rig: Rig, subtests: pytest.Subtests) -> None:
    pod = await rig.pod()
    await rig.start(closed(port=pod.port))
    await rig.router()
    for case in TOKENS:
        headers, status = case.values
        for path, host in (("/v2", "digits.demo"), ("/demo/digits/v2", "x"), ("/demo/digits/variants/stable/v2", "x")):
            with subtests.test(f"{case.id} {path}"):
                before = pod.requests
                answer = await rig.ask(path, host, headers=headers)
                assert answer.status == 200 or is_refusal(answer, status), answer
                assert (answer.status, pod.requests - before) == (status, int(status == 200))


async def test_a_token_in_the_query_is_no_token(rig: Rig) -> None:
    """It would be kept in every log on the way."""
    await rig.start(closed())
    await rig.router()
    assert is_refusal(await rig.ask(f"/v2?access_token={US.token()}"), 401)


async def test_the_model_sees_neither_token_nor_claims(rig: Rig) -> None:
    pod = await rig.pod()
    await rig.start(closed(port=pod.port))
    await rig.router()
    token = US.token()
    seen = (await rig.ask(headers=bearer(token))).body["headers"]
    assert "Authorization" not in seen
    assert not any(part in str(seen) for part in (*token.split("."), "serviceaccount"))


async def test_a_closed_model_without_pods_does_not_say_so_to_strangers(rig: Rig) -> None:
    await rig.start(replace(route_spec(), access=(accounts(),)))
    await rig.router()
    assert is_refusal(await rig.ask(), 401)
    assert (await rig.ask(headers=bearer(US.token()))).body["code"] == "no_ready_endpoint"


EITHER = [
    pytest.param(bearer(US.token()), 200, id="service account"),
    pytest.param(bearer(EXTERNAL.token("somebody", aud="models")), 200, id="external"),
    pytest.param(bearer(EXTERNAL.token("", aud="models")), 200, id="external, of nobody"),
    pytest.param(bearer(US.token("system:serviceaccount:batch:other")), 403, id="service account, not named"),
    pytest.param(bearer(EXTERNAL.token("system:serviceaccount:demo:client")), 401, id="external, other's audience"),
    pytest.param(bearer(US.token(aud="models")), 401, id="service account, other's audience"),
    pytest.param(bearer(EXTERNAL.token(iss=CLUSTER)), 401, id="external that names the cluster"),
    pytest.param(bearer(US.token(iss=EXTERNAL.name, aud="models")), 401, id="cluster that names the external"),
    pytest.param({}, 401, id="none"),
]


async def test_either_of_two_issuers(rig: Rig, subtests: pytest.Subtests) -> None:
    pod = await rig.pod()
    await rig.start(closed(accounts(), EVERYBODY_OF_EXTERNAL, port=pod.port))
    await rig.router()
    for case in EITHER:
        with subtests.test(case.id):
            headers, status = case.values
            answer = await rig.ask(headers=headers)
            assert answer.status == 200 or is_refusal(answer, status)
            assert answer.status == status


async def test_keys_are_rotated_and_until_they_are_known_nobody_gets_in(rig: Rig) -> None:
    old, new = Issuer(kid="old"), Issuer(kid="new")
    both = f'{{"keys": [{old.keys[10:-2]}, {new.keys[10:-2]}]}}'
    pod = await rig.pod()
    await rig.start()
    await rig.router()
    seen = {}
    for name, keys in (("unknown", ""), ("old", old.keys), ("both", both), ("new", new.keys)):
        rig.set(closed(accounts(keys), port=pod.port))
        assert (await rig.programmed(KEY)).acknowledged
        answers = [await rig.ask(headers=bearer(issuer.token())) for issuer in (old, new)]
        seen[name] = [answer.status for answer in answers]
        if name == "unknown":
            assert "Jwks_remote_fetch_is_failed" in answers[0].body["detail"]
    assert seen == {"unknown": [401, 401], "old": [200, 401], "both": [200, 200], "new": [401, 200]}


async def test_closing_and_opening_costs_those_who_may_ask_nothing(rig: Rig) -> None:
    pod = await rig.pod()
    await rig.start(route_spec(backend(ports=[pod.port])))
    await rig.router()
    async with rig.traffic(headers=bearer(US.token())) as seen:
        for spec, anonymous in ((closed(port=pod.port), 401), (route_spec(backend(ports=[pod.port])), 200)) * 3:
            rig.set(spec)
            assert (await rig.programmed(KEY)).acknowledged
            assert (await rig.ask()).status == anonymous
            enough = seen.total() + 20
            await rig.until(lambda enough=enough: seen.total() > enough)
    assert set(seen) == {"200 pod"}


BAD = [
    pytest.param(replace(accounts(), keys="nonsense"), id="keys that are none"),
    pytest.param(replace(accounts(), issuer=""), id="no issuer: any"),
    pytest.param(replace(accounts(), audiences=()), id="no audience: any"),
    pytest.param(replace(accounts(), subjects=()), id="no subject"),
]


@pytest.mark.parametrize("issuer", BAD)
async def test_a_bad_issuer_opens_nothing_and_costs_the_others_nothing(rig: Rig, issuer: model.Issuer) -> None:
    pod = await rig.pod()
    bad = replace(route_spec(backend(ports=[pod.port], model="bad"), name="bad"), access=(issuer,))
    await rig.start(closed(port=pod.port), bad)
    await rig.router()
    assert (await rig.ask(headers=bearer(US.token()))).status == 200
    for headers in ({}, bearer(US.token("x", aud="x")), bearer(OTHERS.token())):
        assert (await rig.ask(host="bad.demo", headers=headers)).status in (401, 404)
    rig.set(replace(bad, access=(accounts(),)))
    assert (await rig.programmed(("demo", "bad"))).acknowledged
    assert (await rig.ask(host="bad.demo", headers=bearer(US.token()))).status == 200


async def test_grpc_goes_by_the_same_rules(rig: Rig) -> None:
    await rig.start(closed())
    await rig.router()
    options = [("grpc.default_authority", "digits.demo")]
    seen = {}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}", options=options) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        for name, token in (
            ("none", None),
            ("expired", US.token(exp=after(-HOUR))),
            ("other", US.token("system:serviceaccount:other:x")),
            ("good", US.token()),
        ):
            metadata = [("authorization", f"Bearer {token}")] if token else []
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call(b"", timeout=5, metadata=metadata)
            seen[name] = error.value.code()
    assert seen == {
        "none": grpc.StatusCode.UNAUTHENTICATED,
        "expired": grpc.StatusCode.UNAUTHENTICATED,
        "other": grpc.StatusCode.PERMISSION_DENIED,
        "good": grpc.StatusCode.UNAVAILABLE,  # allowed, but no pod is there
    }
