"""Who may lead: the rules as a table, and then two candidates over an API server in memory, in fake time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import AsyncIterator

import looptime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inflight_operator.decide import election
from inflight_operator.decide.election import Lease, Sighting
from inflight_operator.installation.lease import NAME, Candidate, LostError
from memory_kube import MemoryKube

MINE, THEIRS, FREE = Lease("a", "1"), Lease("b", "1"), Lease("", "1")


@pytest.mark.parametrize(
    ("lease", "unchanged_for", "may"),
    [
        pytest.param(None, 0.0, True, id="nobody ever led"),
        pytest.param(FREE, 0.0, True, id="given back"),
        pytest.param(MINE, 0.0, True, id="mine: the process before me in this pod is dead"),
        pytest.param(THEIRS, 0.0, False, id="just renewed"),
        pytest.param(THEIRS, 8.0, False, id="to the last moment it is theirs"),
        pytest.param(THEIRS, 8.1, True, id="not renewed for as long as it said"),
        pytest.param(Lease("b", "1", 60.0), 10.1, False, id="the holder's own duration counts"),
    ],
)
def test_when_a_lease_may_be_taken(lease: Lease | None, unchanged_for: float, may: bool) -> None:
    assert election.may_take(Sighting(lease, 100.0), "a", 100.0 + unchanged_for) is may


def test_a_renewal_begins_the_wait_anew() -> None:
    seen = election.see(None, Lease("b", "1"), 100.0)
    assert election.see(seen, Lease("b", "1"), 105.0).since == 100.0
    assert election.see(seen, Lease("b", "2"), 105.0).since == 105.0


def test_a_leader_stops_before_anybody_may_take_its_lease() -> None:
    assert election.GIVE_UP_SECONDS < election.LEASE_SECONDS
    assert election.left(100.0, 105.0) == 1.0
    assert election.left(100.0, 106.0) == 0.0


class Rival:
    """A candidate that notes when it led."""

    def __init__(self, kube: MemoryKube, name: str) -> None:
        self.kube = kube
        self.candidate = Candidate(kube, "system", name, self.clock)  # type: ignore[arg-type]
        self.led: list[tuple[float, float | None]] = []

    @staticmethod
    def clock() -> float:
        return asyncio.get_running_loop().time()

    async def run(self) -> None:
        while True:
            await self.candidate.win()
            began = self.clock()
            self.led.append((began, None))
            try:
                await self.candidate.keep()
            except LostError:
                pass
            finally:
                self.led[-1] = (began, self.clock())


@contextlib.asynccontextmanager
async def running(*rivals: Rival) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(rival.run()) for rival in rivals]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def holder(kube: MemoryKube) -> str:
    return str(kube.objects["Lease", "system", NAME]["spec"]["holderIdentity"])


@pytest.mark.looptime
async def test_one_leads_and_goes_on_leading() -> None:
    a = Rival(MemoryKube(), "a")
    b = Rival(a.kube.beside(), "b")
    async with running(a, b):
        await asyncio.sleep(600)
        assert (len(a.led), len(b.led)) == (1, 0)
    assert a.kube.objects["Lease", "system", NAME]["metadata"]["ownerReferences"][0]["uid"] == "service-uid"


@pytest.mark.looptime
async def test_the_other_leads_within_ten_seconds_of_a_death() -> None:
    a = Rival(MemoryKube(), "a")
    b = Rival(a.kube.beside(), "b")
    async with running(a, b) as tasks:
        await asyncio.sleep(61.7)
        died = a.clock()
        tasks[0].cancel()
        await asyncio.sleep(30)
        assert election.LEASE_SECONDS - election.RENEW_EVERY_SECONDS <= b.led[0][0] - died <= 10.0
        assert a.kube.objects["Lease", "system", NAME]["spec"]["leaseTransitions"] == 2


@pytest.mark.looptime
async def test_who_gives_back_is_followed_within_a_second() -> None:
    a = Rival(MemoryKube(), "a")
    b = Rival(a.kube.beside(), "b")
    async with running(a, b) as tasks:
        await asyncio.sleep(61.7)
        tasks[0].cancel()
        await a.candidate.give_back()
        gone = a.clock()
        await asyncio.sleep(30)
        assert b.led[0][0] - gone <= 1.0


@pytest.mark.looptime
async def test_what_was_given_back_is_not_renewed() -> None:
    """A leader that stands down is still serving for a while. Seen failing: it took the Lease again at once."""
    a = Rival(MemoryKube(), "a")
    async with running(a):
        await asyncio.sleep(5)
        await a.candidate.give_back()
        keeping = asyncio.create_task(a.candidate.keep())
        a.led.clear()
        await asyncio.wait([keeping], timeout=10)
        assert keeping.done()


@pytest.mark.looptime
async def test_giving_back_what_another_has_by_now_changes_nothing() -> None:
    a = Rival(MemoryKube(), "a")
    b = Rival(a.kube.beside(), "b")
    async with running(a, b) as tasks:
        await asyncio.sleep(5)
        tasks[0].cancel()  # it never notices that it lost
        await asyncio.sleep(20)
        await a.candidate.give_back()
        assert holder(a.kube) == "b"


@pytest.mark.looptime
async def test_who_cant_reach_the_api_server_stops_before_the_other_begins() -> None:
    a = Rival(MemoryKube(), "a")
    b = Rival(a.kube.beside(), "b")
    async with running(a, b):
        await asyncio.sleep(60.9)
        a.kube.down = True
        await asyncio.sleep(60)
        stopped, began = a.led[0][1], b.led[0][0]
        assert stopped is not None
        assert stopped < began


@pytest.mark.looptime
async def test_when_the_api_server_was_away_for_all_the_last_leader_leads_again() -> None:
    a = Rival(MemoryKube(), "a")
    async with running(a):
        await asyncio.sleep(60)
        a.kube.down = True
        await asyncio.sleep(60)
        a.kube.down = False
        back = a.clock()
        await asyncio.sleep(10)
        assert len(a.led) == 2
        assert a.led[1][0] - back <= 1.0


@pytest.mark.looptime
async def test_a_process_that_starts_anew_in_the_same_pod_leads_on() -> None:
    a = Rival(MemoryKube(), "a")
    async with running(a):
        await asyncio.sleep(5)
    again = Rival(a.kube.beside(), "a")
    async with running(again, Rival(a.kube.beside(), "b")):
        await asyncio.sleep(1)
        assert len(again.led) == 1


@pytest.mark.looptime
async def test_a_slow_look_sees_the_lease_as_of_its_end() -> None:
    """What it brings may have been written while it was under way. Seen failing when the look's beginning counted."""
    a = Rival(MemoryKube(), "a")
    b = Candidate(slow := a.kube.beside(), "system", "b", Rival.clock)  # type: ignore[arg-type]
    async with running(a):
        await asyncio.sleep(1)
        slow.slow = 2.5
        looking = asyncio.create_task(b.win())
        await asyncio.sleep(2.6)
        assert b._seen is not None
        assert b._seen.since >= 1 + 2.5
        looking.cancel()
        await asyncio.wait([looking])


FAULTS = st.lists(
    st.tuples(st.floats(0.1, 15.0), st.sampled_from(["a down", "b down", "a slow", "b slow", "well"])), max_size=30
)


@given(faults=FAULTS)
@settings(max_examples=60, deadline=None)
def test_there_are_never_two(faults: list[tuple[float, str]]) -> None:
    """Whatever either of them can't reach, and however slowly."""
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        led = runner.run(under(faults))
    for (_, end), (began, _) in itertools.pairwise(led):
        assert end <= began


async def under(faults: list[tuple[float, str]]) -> list[tuple[float, float]]:
    """When either of two led while `faults` went on, in order."""
    a = Rival(MemoryKube(), "a")
    b = Rival(a.kube.beside(), "b")
    async with running(a, b):
        for seconds, fault in faults:
            for name, rival in (("a", a), ("b", b)):
                rival.kube.down = fault == f"{name} down"
                rival.kube.slow = 2.5 if fault == f"{name} slow" else 0.0
            await asyncio.sleep(seconds)
    return sorted((began, end or math.inf) for rival in (a, b) for began, end in rival.led)
