"""Demand from reports: summed over routers, unknown is never zero. How samples become demand: test_settled."""

from __future__ import annotations

import pytest
from envoy.config.core.v3 import address_pb2
from envoy.config.endpoint.v3 import load_report_pb2
from envoy.service.load_stats.v3 import lrs_pb2

from inflight_operator.xds.load import REPORT_SECONDS, Load, Report, Window
from inflight_operator.xds.lrs import parse
from inflight_operator.xds.model import Endpoint

A, B = Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.2", 8080)


class Rig:
    """Routers that report when they are told to, and a clock that stands still in between."""

    def __init__(self, *nodes: str) -> None:
        self.now = 100.0
        self.connected = set(nodes)
        self.load = Load(lambda: self.now, lambda: self.connected)
        self.windows: dict[str, Window] = {node: self.load.opened(node) for node in nodes}

    def report(self, node: str, count: int, seconds: float = 1) -> None:
        for _ in range(round(seconds / REPORT_SECONDS)):
            self.now += REPORT_SECONDS
            self.load.report(self.windows[node], Report({"demo/a": count}, {"demo/a": {A: count}}))

    @property
    def demand(self) -> float | None:
        return self.load.in_flight("demo", "a")


def test_before_the_first_whole_interval_nothing_is_known() -> None:
    rig = Rig("first")
    assert rig.demand is None
    rig.report("first", 3)
    assert rig.demand == 3


@pytest.mark.parametrize(("seconds", "demand"), [(0, 1), (1, 13 / 6), (3, 4.5), (5, 41 / 6), (6, 8), (9, 8)])
def test_a_step_is_whole_after_the_window_and_never_overshoots(seconds: int, demand: float) -> None:
    rig = Rig("first")
    rig.report("first", 1, seconds=10)
    rig.report("first", 8, seconds=seconds)
    assert rig.demand == pytest.approx(demand)


def test_quiet_is_zero_once_the_window_has_passed() -> None:
    rig = Rig("first")
    rig.report("first", 8, seconds=6)
    rig.load.report(rig.windows["first"], Report())
    assert rig.demand is not None
    assert rig.demand < 8
    for _ in range(round(6 / REPORT_SECONDS)):
        rig.now += REPORT_SECONDS
        rig.load.report(rig.windows["first"], Report())
    assert rig.demand == 0
    assert rig.load.in_flight_by_endpoint("demo", "a") == {}
    assert rig.load.in_flight("demo", "never heard of") == 0


def test_routers_are_summed_instant_by_instant() -> None:
    """One client goes from router to router: each sees it half of the time, together they see it always."""
    rig = Rig("first", "second")
    for turn in range(24):
        here, there = ({"demo/a": 1}, {"demo/a": {A: 1}}), ({}, {})
        rig.now += REPORT_SECONDS
        for node, seen in zip(("first", "second"), (here, there) if turn % 3 else (there, here), strict=True):
            rig.load.report(rig.windows[node], Report(*seen))
        assert rig.demand == 1
    assert rig.load.in_flight_by_endpoint("demo", "a") == pytest.approx({A: 1})


def test_endpoints_have_the_means_of_the_shortest_window() -> None:
    rig = Rig("first", "second")
    rig.report("first", 9, seconds=7)
    for _ in range(24):
        rig.report("first", 4, seconds=REPORT_SECONDS)
        rig.load.report(rig.windows["second"], Report({"demo/a": 2}, {"demo/a": {A: 1, B: 1}}))
    assert rig.demand == pytest.approx(6)
    assert rig.load.in_flight_by_endpoint("demo", "a") == pytest.approx({A: 5, B: 1})


def test_a_router_that_joins_is_not_added_to_what_the_others_had_before() -> None:
    """Eight requests are shared from then on; a mean over the first router's past would count some twice."""
    rig = Rig("first")
    rig.report("first", 8, seconds=20)
    rig.connected.add("second")
    rig.windows["second"] = rig.load.opened("second")
    for _ in range(8):
        rig.report("first", 4, seconds=REPORT_SECONDS)
        rig.load.report(rig.windows["second"], Report({"demo/a": 4}, {"demo/a": {B: 4}}))
        assert rig.demand == 8


def test_a_router_that_was_silent_starts_anew() -> None:
    rig = Rig("first")
    rig.report("first", 8, seconds=20)
    rig.now += 10
    rig.report("first", 1, seconds=REPORT_SECONDS)
    assert rig.demand == 1


def test_a_router_that_falls_silent_is_unknown() -> None:
    rig = Rig("first", "second")
    rig.report("first", 1)
    rig.report("second", 1)
    assert rig.demand == 2
    rig.report("first", 1, seconds=4)
    assert rig.demand is None
    rig.report("second", 1)
    assert rig.demand == 2


def test_an_expected_router_that_is_missing_is_unknown() -> None:
    rig = Rig("first")
    rig.report("first", 1)
    rig.load.expect(2)
    assert rig.demand is None
    assert rig.load.in_flight_by_endpoint("demo", "a") is None
    rig.load.expect(None)
    assert rig.demand == 1


def test_more_routers_than_expected_all_count() -> None:
    """While routers are replaced, the leaving one still has requests."""
    rig = Rig("first", "second")
    rig.load.expect(1)
    rig.report("first", 1)
    rig.report("second", 2)
    assert rig.demand == 3


def test_no_router_is_unknown() -> None:
    rig = Rig()
    assert rig.demand is None
    rig.load.expect(0)
    assert rig.demand is None


def test_a_router_that_is_programmed_but_does_not_report_is_unknown() -> None:
    rig = Rig("first")
    rig.report("first", 1)
    rig.connected.add("second")
    assert rig.demand is None


def test_a_router_that_is_gone_no_longer_counts_and_starts_anew() -> None:
    rig = Rig("first", "second")
    rig.report("first", 1)
    rig.report("second", 2)
    stale = rig.windows["second"]
    rig.windows["second"] = rig.load.opened("second")  # it is back before its old stream is over
    assert rig.demand is None
    rig.load.closed("second", stale)
    rig.report("second", 5)
    rig.report("first", 1)
    assert rig.demand == 6
    rig.load.closed("second", rig.windows["second"])
    rig.connected.remove("second")
    assert rig.demand == 1


def stats(*counts: tuple[Endpoint, int], priority: int = 0) -> load_report_pb2.UpstreamLocalityStats:
    return load_report_pb2.UpstreamLocalityStats(
        total_requests_in_progress=sum(count for _, count in counts),
        priority=priority,
        upstream_endpoint_stats=[
            load_report_pb2.UpstreamEndpointStats(
                address=address_pb2.Address(
                    socket_address=address_pb2.SocketAddress(address=e.address, port_value=e.port)
                ),
                total_requests_in_progress=count,
            )
            for e, count in counts
        ],
    )


def test_a_report_is_read_over_localities_and_priorities() -> None:
    request = lrs_pb2.LoadStatsRequest(
        cluster_stats=[
            load_report_pb2.ClusterStats(
                cluster_name="demo/a",
                upstream_locality_stats=[stats((A, 2), (B, 0)), stats((A, 1), priority=1)],
            ),
            load_report_pb2.ClusterStats(cluster_name="demo/quiet"),
            load_report_pb2.ClusterStats(cluster_name="demo/done", upstream_locality_stats=[stats((A, 0))]),
        ]
    )
    assert parse(request) == Report({"demo/a": 3}, {"demo/a": {A: 3, B: 0}})
