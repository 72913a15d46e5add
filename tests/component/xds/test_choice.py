"""Who answers whom on a real Envoy: users who stay where they are, and rules that come before the weights."""

from __future__ import annotations

import math
from dataclasses import replace
from http.cookies import SimpleCookie

import pytest

from inflight_operator.decide import stickiness
from inflight_operator.xds.model import RouteSpec, Rule, Sticky
from route_specs import backend, route_spec
from router_rig import Rig

USERS = 1000
BY_HEADER = Sticky(header="x-user-id")
BY_COOKIE = Sticky(cookie="inflight-user", ttl_seconds=3600)
PATHS = [pytest.param("digits.demo", "/v2", id="by host"), pytest.param("router", "/demo/digits/v2", id="by path")]


def variant(answer) -> str:
    return answer.headers["x-inflight-variant"]


async def spec(rig: Rig, name: str = "digits", **options) -> RouteSpec:
    backends = [backend(v, [(await rig.pod()).port], model=name) for v in ("stable", "candidate", "third")]
    return replace(route_spec(*backends, name=name, weights=(95, 5)), **options)


def reweighted(before: RouteSpec, **weights: int) -> RouteSpec:
    """As the operator does: from the places that there are."""
    name_of = {b.variant: b.name for b in before.backends}
    wanted = {name_of[v]: weight for v, weight in weights.items()}
    runs = stickiness.decide([stickiness.Run(name, name, count) for name, count in before.split], wanted, wanted)
    return replace(before, split=tuple((run.now, run.count) for run in runs))


async def where(rig: Rig, host: str, path: str, users: int = USERS) -> dict[int, str]:
    """Which variant each user gets."""
    return {user: variant(await rig.ask(path, host, headers={"x-user-id": f"user-{user}"})) for user in range(users)}


@pytest.mark.parametrize(("host", "path"), PATHS)
async def test_a_user_keeps_his_variant_and_a_change_moves_only_whom_it_has_to(rig: Rig, host: str, path: str) -> None:
    first = await spec(rig, sticky=BY_HEADER)
    await rig.start(first)
    await rig.router()
    before = await where(rig, host, path)
    assert await where(rig, host, path, 100) == {user: before[user] for user in range(100)}
    share = sum(v == "candidate" for v in before.values())
    assert abs(share - 0.05 * USERS) <= 4 * math.sqrt(USERS * 0.05 * 0.95)
    key = rig.set(reweighted(first, stable=90, candidate=10))
    await rig.programmed(key)
    after = await where(rig, host, path)
    moved = {user for user in before if before[user] != after[user]}
    assert all((before[user], after[user]) == ("stable", "candidate") for user in moved)
    assert len(moved) <= 0.05 * USERS + 4 * math.sqrt(USERS * 0.05 * 0.95)


async def test_the_same_user_has_another_place_in_another_model_deployment(rig: Rig) -> None:
    """Else whoever is in one experiment would be in all of them."""
    specs = [await spec(rig, name, sticky=BY_HEADER) for name in ("digits", "letters")]
    halves = [reweighted(one, stable=50, candidate=50) for one in specs]
    await rig.start(*halves)
    await rig.router()
    digits = await where(rig, "digits.demo", "/v2", 400)
    letters = await where(rig, "letters.demo", "/v2", 400)
    same = sum(digits[user] == letters[user] for user in digits)
    assert abs(same - 200) <= 4 * math.sqrt(400 * 0.25)


async def test_without_the_header_the_split_is_by_chance(rig: Rig) -> None:
    await rig.start(reweighted(await spec(rig, sticky=BY_HEADER), stable=50, candidate=50))
    await rig.router()
    found = [variant(await rig.ask("/v2", "digits.demo")) for _ in range(200)]
    assert abs(found.count("stable") - 100) <= 4 * math.sqrt(200 * 0.25)


@pytest.mark.parametrize(("host", "path"), PATHS)
async def test_a_newcomer_is_given_a_cookie_and_has_his_place_already(rig: Rig, host: str, path: str) -> None:
    await rig.start(reweighted(await spec(rig, sticky=BY_COOKIE), stable=50, candidate=50))
    await rig.router()
    seen = set()
    for _ in range(20):
        first = await rig.ask(path, host)
        cookie = SimpleCookie(first.headers["set-cookie"])["inflight-user"]
        assert (cookie["max-age"], cookie["path"], cookie["httponly"]) == ("3600", path.removesuffix("v2"), True)
        seen.add(variant(first))
        for other in ("", "a=b; ", "xinflight-user=no; "):
            again = await rig.ask(path, host, headers={"cookie": f"{other}inflight-user={cookie.value}; c=d"})
            assert variant(again) == variant(first)
            assert "set-cookie" not in again.headers
    assert seen == {"stable", "candidate"}


async def test_a_cookie_of_another_name_is_none(rig: Rig) -> None:
    await rig.start(reweighted(await spec(rig, sticky=BY_COOKIE), stable=50, candidate=50))
    await rig.router()
    answer = await rig.ask(
        "/v2", "digits.demo", headers={"cookie": "xinflight-user=1; inflight-user=; inflight-userx=1"}
    )
    assert "set-cookie" in answer.headers


RULES = [
    pytest.param({"x-qa": "1"}, "/v2/health", "candidate", id="a header and its value"),
    pytest.param({"x-qa": "2"}, "/v2/health", "stable", id="another value"),
    pytest.param({"x-any": "whatever"}, "/v2/health", "third", id="a header with any value"),
    pytest.param({}, "/v2/models/new/infer", "third", id="a path"),
    pytest.param({"x-qa": "1"}, "/v2/models/new/infer", "candidate", id="the first rule that fits"),
    pytest.param({"x-both": "1"}, "/v1/both/x", "candidate", id="both"),
    pytest.param({"x-both": "1"}, "/v1/other", "stable", id="only one of both"),
    pytest.param({}, "/v2/health", "stable", id="no rule"),
]


async def test_rules_come_before_the_weights(rig: Rig, subtests: pytest.Subtests) -> None:
    made = await spec(rig)
    of = {b.variant: b.name for b in made.backends}
    rules = (
        Rule(of["candidate"], "x-qa", "1"),
        Rule(of["third"], "x-any"),
        Rule(of["third"], path="/v2/models/new"),
        Rule(of["candidate"], "x-both", "1", "/v1/both/"),
    )
    await rig.start(replace(made, split=((of["stable"], 100),), rules=rules))
    await rig.router()
    for case in RULES:
        headers, path, expected = case.values
        for host, prefix in (("digits.demo", ""), ("router", "/demo/digits")):
            with subtests.test(case.id, host=host):
                answer = await rig.ask(prefix + path, host, headers=headers)
                assert (answer.status, variant(answer), answer.body["path"]) == (200, expected, path)


async def test_a_rule_shows_no_metrics_and_goes_to_nobody_else(rig: Rig) -> None:
    made = await spec(rig, sticky=BY_COOKIE)
    of = {b.variant: b.name for b in made.backends}
    empty = tuple(replace(b, endpoints=frozenset()) if b.variant == "third" else b for b in made.backends)
    await rig.start(replace(made, backends=empty, rules=(Rule(of["third"], "x-qa"),)))
    await rig.router()
    assert (await rig.ask("/metrics", "digits.demo", headers={"x-qa": "1"})).status == 404
    answer = await rig.ask("/v2", "digits.demo", headers={"x-qa": "1"})
    assert (answer.status, answer.body["code"]) == (503, "no_ready_endpoint")
