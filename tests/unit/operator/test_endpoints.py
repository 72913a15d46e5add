"""Some to none: what is routed to when no pod is ready any more."""

import pytest

from inflight_operator.decide.endpoints import routable


@pytest.mark.parametrize(
    ("ready", "unready", "before", "used"),
    [
        pytest.param("ab", "", "", "ab", id="the ready ones"),
        pytest.param("a", "b", "ab", "a", id="one is enough"),
        pytest.param("", "ab", "ab", "ab", id="none any more: those that were"),
        pytest.param("", "a", "ab", "a", id="of those, the ones that are still there"),
        pytest.param("", "abc", "ab", "ab", id="not one that was never ready"),
        pytest.param("", "ab", "", "", id="none was ever ready"),
        pytest.param("", "", "ab", "", id="they are really gone"),
        pytest.param("c", "ab", "ab", "c", id="a new one is ready"),
    ],
)
def test_what_requests_go_to(ready: str, unready: str, before: str, used: str) -> None:
    assert routable(frozenset(ready), frozenset(unready), frozenset(before)) == frozenset(used)
