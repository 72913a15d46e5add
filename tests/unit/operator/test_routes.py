"""What the routers are told of a ModelDeployment's revisions."""

from typing import Any

import pytest

from inflight_operator.api.world import Revision
from inflight_operator.desired import routes


def revision(server: dict[str, Any] | None) -> Revision:
    record = None if server is None else {"server": server}
    return Revision("digits-main-0a1b2c3d", "main", "0a1b2c3d", record, {}, frozenset({("10.0.0.1", 8080, "")}), "")


@pytest.mark.parametrize(
    ("server", "waits", "holds"),
    [
        pytest.param({"timeoutMilliseconds": 2000, "concurrency": 2, "maxQueue": 3}, 2500, 5, id="as it was born"),
        pytest.param({}, 10_500, 9, id="with the defaults"),
        pytest.param(None, 10_500, 9, id="with its record lost"),
    ],
)
def test_a_router_waits_longer_than_the_server_so_that_the_server_has_the_last_word(server, waits, holds):
    (backend,) = routes.build(("demo", "digits"), [], [revision(server)], {}, routable={}, access=None).backends
    assert backend.timeout_milliseconds == waits
    assert backend.max_in_flight == holds
    assert routes.timeout_milliseconds(revision(server)) == waits - routes.ROUTER_GRACE_MILLISECONDS
