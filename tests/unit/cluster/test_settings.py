"""Names, places and choices of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from inflight_cluster.components import Options
from inflight_cluster.errors import ClusterError
from inflight_cluster.settings import load


def test_everything_has_a_default() -> None:
    settings = load({"HOME": "/home/me"})
    assert (settings.layout.name, settings.backend) == ("inflight-local", "local")
    assert settings.cache == Path("/home/me/.cache/inflight")
    assert settings.state == Path("/var/lib/inflight/local")


@pytest.mark.parametrize(
    ("environment", "cache"),
    [
        pytest.param({"INFLIGHT_CACHE": "/c", "XDG_CACHE_HOME": "/x"}, "/c", id="our own variable first"),
        pytest.param({"XDG_CACHE_HOME": "/x"}, "/x/inflight", id="then the desktop's"),
    ],
)
def test_the_cache_is_where_the_environment_says(environment: dict[str, str], cache: str) -> None:
    assert load(environment).cache == Path(cache)


def test_another_name_shares_nothing_but_the_cache() -> None:
    one, two = load({}), load({"INFLIGHT_CLUSTER_NAME": "two"})
    assert one.cache == two.cache
    assert one.layout.name != two.layout.name
    assert not two.state.is_relative_to(one.state)


def test_kind_keeps_its_kubeconfig_where_no_root_is_needed() -> None:
    settings = load({"CLUSTER": "kind", "INFLIGHT_CACHE": "/c"})
    assert settings.layout.kubeconfig.is_relative_to("/c")


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        pytest.param(
            {"INFLIGHT_CLUSTER_NAME": "../etc"}, "INFLIGHT_CLUSTER_NAME", id="a name that leaves the directory"
        ),
        pytest.param({"INFLIGHT_CLUSTER_NAME": "Two"}, "INFLIGHT_CLUSTER_NAME", id="a name in capitals"),
        pytest.param({"INFLIGHT_CLUSTER_NAME": "x" * 22}, "INFLIGHT_CLUSTER_NAME", id="a name that is too long"),
        pytest.param({"INFLIGHT_HPA_SYNC": "5"}, "duration", id="a duration without a unit"),
        pytest.param({"CLUSTER": "minikube"}, "'local' and 'kind'", id="an unknown kind of cluster"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_name(environment: dict[str, str], told: str) -> None:
    with pytest.raises(ClusterError, match=told):
        load(environment)


@pytest.mark.parametrize(
    ("now", "earlier", "merged"),
    [
        pytest.param(Options(), Options(audit=True), Options(audit=True), id="nothing chosen now: as it was"),
        pytest.param(Options(audit=False), Options(audit=True), Options(audit=False), id="no is a choice"),
        pytest.param(
            Options(hpa_sync="5s"), Options(fsync=True), Options(fsync=True, hpa_sync="5s"), id="choices add up"
        ),
    ],
)
def test_choices_hold_until_others_are_made(now: Options, earlier: Options, merged: Options) -> None:
    assert now.over(earlier) == merged
