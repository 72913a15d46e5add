"""How kopf is set up: a watcher that writes nothing, gives up never, and asks for no more than it may see."""

from __future__ import annotations

import itertools

import pytest

from inflight_operator import handlers


@pytest.mark.parametrize("clusterwide", [pytest.param(True, id="all namespaces"), pytest.param(False, id="named ones")])
def test_only_who_may_see_the_whole_cluster_looks_for_namespaces_and_definitions(clusterwide: bool) -> None:
    """With rights in some namespaces only, the endless retries of a forbidden list kept every watch from starting."""
    assert handlers.settings(clusterwide=clusterwide).scanning.disabled is not clusterwide


def test_a_watch_is_never_given_up() -> None:
    made = handlers.settings(clusterwide=True)
    pauses = list(itertools.islice(iter(made.networking.error_backoffs), 1000))
    assert len(pauses) == 1000
    assert max(pauses) == 10.0


def test_kopf_posts_nothing_of_its_own() -> None:
    assert handlers.settings(clusterwide=True).posting.enabled is False
