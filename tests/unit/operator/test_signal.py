"""What HPAs are told, and when nothing is."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from inflight_operator.decide.demand import HEADROOM
from inflight_operator.scaling_signal import SETTLE_SECONDS, Signal

KEY = ("demo", "digits")


@dataclass
class Routers:
    loads: dict[str, float | None] = field(default_factory=dict)
    now: float = 100.0

    def signal(self) -> Signal:
        return Signal(lambda _, name: self.loads.get(name, 0.0), lambda: self.now)


def test_an_unknown_deployment_has_no_demand():
    assert Routers().signal().demand("demo", "nobody") is None


def test_demand_is_what_the_routers_report_of_the_serving_revision():
    routers = Routers({"digits-stable-1": 3.0})
    signal = routers.signal()
    signal.serve(KEY, {"stable": "digits-stable-1"}, {"stable": 100}, {"stable": 100})
    assert signal.demand("demo", "digits-stable-1") == 3.0
    assert signal.demand("other", "digits-stable-1") is None, "names are of one namespace"


def test_missing_load_data_is_not_zero():
    routers = Routers({"digits-stable-1": None})
    signal = routers.signal()
    signal.serve(KEY, {"stable": "digits-stable-1"}, {"stable": 100}, {"stable": 100})
    assert signal.demand("demo", "digits-stable-1") is None


def test_a_revision_that_just_took_the_weight_is_not_judged_before_a_whole_window_saw_it():
    routers = Routers({"old": 8.0, "new": 0.0})
    signal = routers.signal()
    signal.serve(KEY, {"stable": "old"}, {"stable": 100}, {"stable": 100})
    signal.serve(KEY, {"stable": "new"}, {"stable": 100}, {"stable": 100})
    assert signal.demand("demo", "new") is None
    assert signal.demand("demo", "old") is None, "it has no weight any more"
    routers.now += SETTLE_SECONDS
    routers.loads["new"] = 8.0
    assert signal.demand("demo", "new") == 8.0


def test_a_gaining_variant_is_told_its_share_before_it_has_it():
    routers = Routers({"a": 9.5, "b": 0.5})
    signal = routers.signal()
    both, goal = {"stable": "a", "candidate": "b"}, {"stable": 5, "candidate": 95}
    signal.serve(KEY, both, goal, {"stable": 95, "candidate": 5})
    assert signal.demand("demo", "b") == pytest.approx(9.5 * HEADROOM)
    assert signal.demand("demo", "a") == pytest.approx(9.5), "who loses is told what it has"
    signal.serve(KEY, both, goal, goal)
    assert signal.demand("demo", "b") == pytest.approx(9.5), "there is no more to lead"


def test_a_gone_model_deployment_is_forgotten():
    signal = Routers({"a": 1.0}).signal()
    signal.serve(KEY, {"stable": "a"}, {"stable": 100}, {"stable": 100})
    signal.forget(KEY)
    assert signal.demand("demo", "a") is None
    assert signal.measured(KEY) == {}


def test_what_a_variant_has_to_be_ready_for_is_known_while_it_gains_weight_and_only_then():
    routers = Routers({"digits-a-1": 9.0, "digits-b-1": 1.0})
    signal = routers.signal()
    assert signal.ahead(KEY, "b") is None
    signal.serve(KEY, {"a": "digits-a-1", "b": "digits-b-1"}, {"a": 20, "b": 80}, {"a": 90, "b": 10})
    assert signal.ahead(KEY, "b") == pytest.approx(8.0 * HEADROOM)
    assert signal.ahead(KEY, "a") is None
    routers.loads["digits-b-1"] = None
    assert signal.ahead(KEY, "b") is None
    routers.loads["digits-b-1"] = 1.0
    signal.serve(KEY, {"a": "digits-a-1", "b": "digits-b-1"}, {"a": 20, "b": 80}, {"a": 20, "b": 80})
    assert signal.ahead(KEY, "b") is None
