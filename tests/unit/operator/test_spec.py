"""The spec as the operator reads it, and what makes a new revision."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from inflight_operator.api import names
from inflight_operator.api.spec import parse
from inflight_operator.api.traffic import Mirror, Retries, Rule, Sticky, Traffic, traffic_of
from inflight_operator.errors import SpecError


def spec(**changes: Any) -> dict[str, Any]:
    variant = {"name": "stable", "model": {"uri": "s3://models/digits/1"}}
    return {"variants": [variant], **changes}


def test_a_variant_alone_gets_all_the_traffic_and_everything_has_a_default():
    parsed = parse("digits", spec())
    (variant,) = parsed.variants
    assert (variant.weight, variant.server["concurrency"], variant.server["maxQueue"]) == (100, 1, 8)
    assert (parsed.autoscaling.min_replicas, parsed.autoscaling.max_replicas) == (1, 10)
    assert parsed.autoscaling.target(variant) == 1


def test_a_variants_own_server_settings_win_field_by_field():
    raw = spec(server={"concurrency": 4, "maxQueue": 2})
    raw["variants"][0]["server"] = {"maxQueue": 0}
    (variant,) = parse("digits", raw).variants
    assert (variant.server["concurrency"], variant.server["maxQueue"]) == (4, 0)
    assert parse("digits", raw).autoscaling.target(variant) == 4, "the target is the concurrency"


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        pytest.param({"variants": []}, "spec.variants", id="no variant"),
        pytest.param({"variants": [{"name": "a"}]}, "spec.variants", id="no model"),
        pytest.param(
            {"variants": [{"name": "a", "weight": 50, "model": {"uri": "s3://b/c"}}]}, "spec.variants", id="sum"
        ),
        pytest.param(
            {"variants": [{"name": "a", "weight": 50, "model": {"uri": "s3://b/c"}}] * 2},
            "spec.variants",
            id="same name",
        ),
        pytest.param(
            spec(autoscaling={"minReplicas": 5, "maxReplicas": 2}),
            "spec.autoscaling.minReplicas",
            id="minimum above maximum",
        ),
    ],
)
def test_what_can_not_be_accepted_names_the_field(raw, field):
    with pytest.raises(SpecError) as refused:
        parse("digits", raw)
    assert refused.value.field == field


def revision(raw: dict[str, Any], name: str = "digits") -> str:
    return parse(name, raw).variants[0].revision


@pytest.mark.parametrize(
    ("path", "value", "new"),
    [
        pytest.param(("variants", 0, "model", "uri"), "s3://models/digits/2", True, id="another model"),
        pytest.param(("variants", 0, "model", "sha256"), "0" * 64, True, id="a digest"),
        pytest.param(("server", "concurrency"), 2, True, id="another concurrency"),
        pytest.param(("server", "concurrency"), 1, False, id="a default spelt out"),
        pytest.param(("server", "podTemplate"), {}, False, id="nothing in particular"),
        pytest.param(("autoscaling", "maxReplicas"), 3, False, id="scaling is not part of a revision"),
        pytest.param(("revisionHistoryLimit",), 7, False, id="nor is history"),
    ],
)
def test_what_makes_a_new_revision(path, value, new):
    raw: Any = spec(server={}, autoscaling={})
    changed: Any = copy.deepcopy(raw)
    at = changed
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert (revision(raw) != revision(changed)) is new


def test_a_weight_is_no_part_of_a_revision():
    def two(first: int) -> dict[str, Any]:
        one, other = copy.deepcopy(spec()["variants"][0]), copy.deepcopy(spec()["variants"][0])
        return {"variants": [one | {"weight": first}, other | {"name": "candidate", "weight": 100 - first}]}

    assert revision(two(95)) == revision(two(5))


def test_names_that_join_alike_never_meet_in_one_revision_name():
    def child(owner: str, variant: str) -> str:
        raw = {"variants": [{"name": variant, "model": {"uri": "s3://b/c"}}]}
        return names.revision_name(owner, variant, revision(raw, owner))

    assert child("a-b", "c") != child("a", "b-c")


def test_revision_names_fit_and_differ_where_they_are_cut():
    one, other = (names.revision_name("m" * 60, "v" * 29 + last, "0123abcd") for last in "vw")
    assert len(one) == len(other) == 63
    assert one != other
    assert one.endswith("-0123abcd")


def test_who_answers_is_chosen_by_rules_and_by_who_asks():
    rules = [{"variant": "stable", "header": {"name": "x-qa"}, "path": {"prefix": "/v2"}}]
    shadowed = spec(traffic={"sticky": {"cookie": "u"}, "rules": rules, "mirror": {"variant": "shadow"}})
    shadowed["variants"][0]["weight"] = 100
    shadowed["variants"].append({"name": "shadow", "weight": 0, "model": {"uri": "s3://models/digits/2"}})
    traffic = parse("digits", shadowed).traffic
    assert traffic.mirror == Mirror("shadow", 100, 32)
    assert traffic.sticky == Sticky("", "u", 30 * 24 * 3600)
    assert traffic.rules == (Rule("stable", "x-qa", None, "/v2"),)
    assert parse("digits", spec()).traffic.sticky is None


@pytest.mark.parametrize(
    ("fields", "retries", "timeout"),
    [
        pytest.param({}, Retries(20, True, False), None, id="unset"),
        pytest.param({"traffic": {"retries": {}, "timeoutMilliseconds": 5}}, Retries(20, True, False), 5, id="empty"),
        pytest.param({"traffic": {"retries": {"budgetPercent": 0}}}, Retries(0, True, False), None, id="off"),
        pytest.param({"traffic": {"idempotent": True}}, Retries(20, True, True), None, id="may be done twice"),
        pytest.param(
            {"traffic": {"idempotent": True, "hedging": {}}}, Retries(20, True, True, True), None, id="asked twice"
        ),
        pytest.param({"autoscaling": {"maxReplicas": 1}}, Retries(20, False, False), None, id="one pod at most"),
    ],
)
def test_how_hard_a_request_is_tried(fields, retries, timeout):
    traffic = parse("digits", spec(**fields)).traffic
    assert (traffic.retries, traffic.timeout_milliseconds) == (retries, timeout)


@pytest.mark.parametrize(
    ("traffic", "field"),
    [
        pytest.param({"hedging": {}}, "spec.traffic.hedging", id="asked twice, which does harm"),
        pytest.param(
            {"hedging": {}, "idempotent": True, "retries": {"budgetPercent": 0}},
            "spec.traffic.hedging",
            id="asked twice without a budget",
        ),
        pytest.param({"hosts": ["digits.demo"]}, "spec.traffic.hosts", id="the host of a ModelDeployment"),
        pytest.param({"hosts": ["a.b.svc"]}, "spec.traffic.hosts", id="the host of a Service"),
        pytest.param({"hosts": ["a.b." + "c" * 64]}, "spec.traffic.hosts", id="no host"),
        pytest.param({"sticky": {}}, "spec.traffic.sticky", id="sticky by nothing"),
        pytest.param({"sticky": {"header": "a", "cookie": "b"}}, "spec.traffic.sticky", id="sticky by both"),
        pytest.param({"mirror": {"variant": "x"}}, "spec.traffic.mirror.variant", id="copies for nobody"),
        pytest.param({"mirror": {"variant": "stable"}}, "spec.traffic.mirror.variant", id="copies for who answers"),
        pytest.param({"rules": [{"variant": "stable"}]}, "spec.traffic.rules", id="a rule for everything"),
        pytest.param({"rules": [{"variant": "x", "path": {"prefix": "/a"}}]}, "spec.traffic.rules", id="for nobody"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(traffic, field):
    with pytest.raises(SpecError) as refused:
        parse("digits", spec(traffic=traffic))
    assert refused.value.field == field


def test_a_variant_without_a_name_is_told_by_the_whole_spec_and_no_bug_of_its_choice():
    """What can't be acted on is asked for its traffic too, so that what served goes on as it was."""
    assert traffic_of({"variants": [{"model": {}}]}) == Traffic()
