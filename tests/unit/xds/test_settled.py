"""Demand from samples: steady while nothing changes, whole six seconds after a step, never above what was seen."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inflight_operator.xds.load import REPORT_SECONDS
from inflight_operator.xds.settled import WINDOWS, dispersion, estimate

PER_SECOND = round(1 / REPORT_SECONDS)
SHORTEST = round(WINDOWS[0] / REPORT_SECONDS)
REQUEST_SECONDS = 0.1
TRANSPORT_SECONDS = 0.004


def told(counts: Sequence[int]) -> float:
    """The estimate from samples in the order in which they were taken."""
    lengths = [min(len(counts), round(window * PER_SECOND)) for window in WINDOWS]
    return estimate(counts[: -lengths[-1] - 1 : -1], lengths)


def lasting(*parts: tuple[float, int]) -> list[int]:
    """So many seconds of so many requests, one part after the other."""
    return [count for seconds, count in parts for _ in range(round(seconds * PER_SECOND))]


@pytest.mark.parametrize(
    ("counts", "demand"),
    [
        pytest.param([3], 3, id="one sample is better than none"),
        pytest.param(lasting((60, 8)), 8, id="constant"),
        pytest.param(lasting((48, 8), (6, 0)), 0, id="nothing in the shortest window is zero"),
        pytest.param(lasting((48, 1), (3, 8)), 4.5, id="half way into a step: the shortest window"),
        pytest.param(lasting((48, 1), (6, 8)), 8, id="a step is whole after six seconds"),
        pytest.param(lasting((48, 8), (6, 1)), 1, id="down as well"),
        pytest.param(lasting((48, 0), (6, 1)), 1, id="what was before the first request dilutes nothing"),
        pytest.param(lasting((48, 1), (30, 2)), 2, id="one to two"),
        pytest.param([1, 0] * 97, 0.5, id="noise about a mean: the longest window"),
        pytest.param([1] * 140 + [0] * 3 + [1] * 49, 189 / 192, id="a few gaps, seen in proportion"),
    ],
)
def test_what_samples_come_to(counts: list[int], demand: float) -> None:
    assert told(counts) == pytest.approx(demand)


@pytest.mark.parametrize(
    ("counts", "noise"),
    [
        pytest.param([8] * 40, 0.1, id="constant: never quite sure"),
        pytest.param([1] * 20 + [8] * 20, 0.1, id="a step is no noise"),
        pytest.param([0, 9] * 20, 1.0, id="a load that jumps is followed, not averaged"),
        pytest.param([2, 2], 1.0, id="too few to tell"),
    ],
)
def test_noise_is_told_from_change(counts: list[int], noise: float) -> None:
    assert dispersion(counts) == pytest.approx(noise)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=192))
def test_demand_is_within_what_was_seen_and_zero_only_when_quiet(counts: list[int]) -> None:
    found = told(counts)
    assert min(counts) <= found <= max(counts) + 1e-9
    assert (found == 0) == (not any(counts[-SHORTEST:]))


def test_a_queue_that_grows_is_seen_within_twelve_seconds() -> None:
    """A request more every second: the answer is at least what was there twelve seconds ago, and no more than now."""
    counts = lasting((48, 1), *((1, count) for count in range(2, 40)))
    for end in range(48 * PER_SECOND, len(counts)):
        found = told(counts[: end + 1])
        assert counts[end - 2 * SHORTEST] <= found <= counts[end]


@dataclass(frozen=True)
class Phase:
    """So many clients, each with one request at a time, until then (s)."""

    until: float
    clients: int
    pods: int


def waiting(phases: Sequence[Phase], chance: random.Random) -> Iterator[tuple[float, float, int]]:
    """Requests of a closed loop over two routers: begin, end, router. A pod answers one request at a time."""
    free = [0.0] * max(phase.pods for phase in phases)
    due: list[float] = []
    began = 0.0
    for phase in phases:
        due += [began + chance.random() * TRANSPORT_SECONDS for _ in range(phase.clients - len(due))]
        due = sorted(due)[: phase.clients]  # whoever is no longer needed still gets its answer
        while due[0] < phase.until:
            at = due[0]
            pod = min(range(phase.pods), key=lambda p: max(free[p], at))
            free[pod] = max(free[pod], at) + REQUEST_SECONDS + chance.expovariate(500)
            yield at, free[pod], chance.randrange(2)
            heapq.heapreplace(due, free[pod] + chance.expovariate(1 / TRANSPORT_SECONDS))
        began = phase.until


def sampled(requests: Sequence[tuple[float, float, int]], seconds: float, chance: random.Random) -> list[int]:
    """What two routers say that are asked at the same instant and hear it some milliseconds apart."""
    counts = [0] * round(seconds * PER_SECOND)
    heard = [[(n + chance.expovariate(200) * PER_SECOND) / PER_SECOND for n in range(len(counts))] for _ in range(2)]
    for begin, end, router in requests:
        for n in range(max(0, int(begin * PER_SECOND) - 1), min(len(counts), int(end * PER_SECOND) + 2)):
            counts[n] += begin <= heard[router][n] < end
    return counts


STEP = (Phase(40, 1, 1), Phase(60, 8, 1), Phase(100, 8, 8), Phase(140, 1, 8))


@pytest.mark.parametrize(
    "phases",
    [
        pytest.param((Phase(60, 1, 1),), id="one client"),
        pytest.param((Phase(60, 2, 2),), id="two clients"),
        pytest.param((Phase(60, 8, 3),), id="eight clients, with a queue"),
        pytest.param((Phase(40, 1, 1), Phase(60, 2, 1), Phase(100, 2, 2)), id="one, then two"),
        pytest.param(STEP, id="one, eight, one"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_clients_that_wait_are_counted_within_ten_percent(phases: Sequence[Phase], seed: int) -> None:
    """From 10 s after each change on, at no less than 95 % of the looks."""
    chance = random.Random(seed)  # noqa: S311 - it is for a test
    counts = sampled(list(waiting(phases, chance)), phases[-1].until, chance)
    looks = good = 0
    for index, phase in enumerate(phases):
        changed = index == 0 or phases[index - 1].clients != phase.clients
        since = 0.0 if index == 0 else phases[index - 1].until
        for at in range(round(since) + (10 if changed else 0), round(phase.until)):
            end = at * PER_SECOND
            found = told(counts[:end])
            looks, good = looks + 1, good + (abs(found - phase.clients) <= 0.1 * phase.clients)
    assert good >= 0.95 * looks


@pytest.mark.parametrize("seed", range(5))
def test_a_step_from_one_to_eight_is_seen_within_six_seconds_and_not_overshot(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - it is for a test
    counts = sampled(list(waiting(STEP, chance)), 60, chance)
    after = [told(counts[:end]) for end in range(40 * PER_SECOND, 60 * PER_SECOND)]
    assert max(after) <= 8.5  # two routers may both see a request that goes from one to the other
    assert min(after[6 * PER_SECOND :]) >= 0.9 * 8
