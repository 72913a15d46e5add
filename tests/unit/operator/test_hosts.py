"""A host has one owner: who has it, else the oldest; and it goes over only when the one who had it has lost it."""

from __future__ import annotations

from typing import Any

import pytest

from inflight_operator.decide.hosts import Claim, allowed, owner
from inflight_operator.hosts import Grant, Hosts

HOST, OTHER = "digits.ml.example", "cats.ml.example"
OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
A, B = ("demo", "a"), ("demo", "b")
DOMAINS = ("ml.example", "team=team.example")


@pytest.mark.parametrize(
    ("claims", "who"),
    [
        pytest.param([], None, id="nobody asks"),
        pytest.param([Claim(A, False, NEW)], A, id="one asks"),
        pytest.param([Claim(A, False, NEW), Claim(B, False, OLD)], B, id="the oldest"),
        pytest.param([Claim(A, True, NEW), Claim(B, False, OLD)], A, id="who has it keeps it"),
        pytest.param([Claim(B, False, OLD), Claim(A, False, OLD)], A, id="equally old: by name"),
        pytest.param([Claim(A, True, NEW), Claim(B, True, OLD)], B, id="both say so: the oldest"),
    ],
)
def test_whose_a_host_is(claims: list[Claim], who: tuple[str, str] | None) -> None:
    assert owner(claims) == who
    assert owner(reversed(claims)) == who


def resource(key: tuple[str, str], *hosts: str, created: str = OLD, told: tuple[str, ...] = ()) -> dict[str, Any]:
    metadata = {"namespace": key[0], "name": key[1], "creationTimestamp": created}
    return {"metadata": metadata, "spec": {"traffic": {"hosts": list(hosts)}}, "status": {"hosts": list(told)}}


def test_it_goes_to_who_waits_for_it_when_it_is_given_up() -> None:
    woken: list[tuple[str, str]] = []
    hosts = Hosts(woken.append, DOMAINS)
    assert hosts.step(resource(A, HOST, OTHER, created=NEW)) == Grant((HOST, OTHER))
    assert hosts.step(resource(B, HOST, created=OLD)) == Grant((), ((HOST, A),)), "also to an older one"
    assert hosts.step(resource(A, OTHER, created=NEW)) == Grant((OTHER,))
    assert set(woken) == {B}
    assert hosts.step(resource(B, HOST, created=OLD)) == Grant((HOST,))


def test_it_goes_to_who_waits_for_it_when_its_owner_is_gone() -> None:
    woken: list[tuple[str, str]] = []
    hosts = Hosts(woken.append, DOMAINS)
    hosts.step(resource(A, HOST))
    hosts.step(resource(B, HOST, created=NEW))
    hosts.forget(A)
    assert set(woken) == {B}
    assert hosts.step(resource(B, HOST, created=NEW)) == Grant((HOST,))
    hosts.forget(("demo", "never seen"))


def test_a_new_operator_knows_by_the_status_who_had_it() -> None:
    hosts = Hosts(lambda _: None, DOMAINS)
    late, early = resource(A, HOST, created=NEW, told=(HOST,)), resource(B, HOST, created=OLD)
    hosts.prime([early, late])
    assert hosts.step(early) == Grant((), ((HOST, A),))
    assert hosts.step(late) == Grant((HOST,))


def test_nobody_has_it_while_the_routes_of_who_had_it_may_still_have_it() -> None:
    """Two with one host would be refused by the routers, both."""
    woken: list[tuple[str, str]] = []
    hosts = Hosts(woken.append, DOMAINS)
    hosts.step(resource(A, HOST, created=NEW))
    claims_more = resource(B, HOST, created=OLD, told=(HOST,))  # a status that somebody has edited
    hosts.prime([claims_more])
    assert hosts.step(claims_more) == Grant()
    assert hosts.step(resource(A, HOST, created=NEW)) == Grant((), ((HOST, B),))
    assert B in woken
    assert hosts.step(claims_more) == Grant((HOST,))


def test_a_spec_that_can_not_be_read_asks_for_nothing() -> None:
    hosts = Hosts(lambda _: None, DOMAINS)
    hosts.step(resource(A, HOST))
    assert hosts.step(resource(A, HOST, "x.svc")) == Grant()
    assert hosts.step(resource(B, HOST, created=NEW)) == Grant((HOST,))


@pytest.mark.parametrize(
    ("host", "namespace", "may"),
    [
        pytest.param("digits.ml.example", "demo", True, id="below a domain for all"),
        pytest.param("a.b.ml.example", "demo", True, id="far below"),
        pytest.param("ml.example", "demo", False, id="the domain itself"),
        pytest.param("digits.html.example", "demo", False, id="ends alike"),
        pytest.param("models.example.com", "demo", False, id="elsewhere"),
        pytest.param("x.team.example", "team", True, id="its own domain"),
        pytest.param("x.team.example", "demo", False, id="another namespace's domain"),
    ],
)
def test_who_may_have_a_host(host: str, namespace: str, may: bool) -> None:
    assert allowed(host, namespace, DOMAINS) is may


def test_without_domains_nobody_may_have_one_and_is_told_so() -> None:
    hosts = Hosts(lambda _: None, ())
    assert hosts.step(resource(A, HOST, told=(HOST,))) == Grant((), ((HOST, None),))


def test_a_status_is_believed_only_at_the_start() -> None:
    """Who gives a host up and asks for it again is a newcomer, whatever his status still says."""
    hosts = Hosts(lambda _: None, DOMAINS)
    hosts.step(resource(A, HOST, created=NEW))
    assert hosts.step(resource(B, HOST, created=OLD, told=(HOST,))) == Grant((), ((HOST, A),))
