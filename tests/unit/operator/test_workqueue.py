"""The queue: one worker a key, deduplicated, delayed, backing off. Time is the event loop's, faked by looptime."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from inflight_operator.workqueue import WorkQueue

pytestmark = [pytest.mark.looptime, pytest.mark.asyncio]


async def run_for(queue: WorkQueue[str], work, seconds: float, workers: int = 2) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(queue.run(work, workers), seconds)


async def test_a_key_added_many_times_is_worked_on_once():
    queue, seen = WorkQueue[str](), []

    async def work(key: str) -> None:
        seen.append(key)

    for _ in range(5):
        queue.add("a")
    await run_for(queue, work, 1)
    assert seen == ["a"]


async def test_a_key_added_while_it_is_worked_on_comes_again_but_never_twice_at_once():
    queue, running, most, count = WorkQueue[str](), 0, 0, 0

    async def work(key: str) -> None:
        nonlocal running, most, count
        running, count = running + 1, count + 1
        most = max(most, running)
        if count == 1:
            queue.add(key)
        await asyncio.sleep(1)
        running -= 1

    queue.add("a")
    await run_for(queue, work, 5)
    assert (most, count) == (1, 2)


async def test_the_soonest_time_wins():
    queue, seen = WorkQueue[str](), []

    async def work(key: str) -> None:
        seen.append(asyncio.get_running_loop().time())

    queue.add("a", 10)
    queue.add("a", 2)
    queue.add("a", 30)
    await run_for(queue, work, 60)
    assert seen == pytest.approx([2], abs=0.01)


async def test_what_work_returns_is_when_it_is_asked_again():
    queue, seen = WorkQueue[str](), []

    async def work(key: str) -> float | None:
        seen.append(asyncio.get_running_loop().time())
        return 5.0 if len(seen) < 3 else None

    queue.add("a")
    await run_for(queue, work, 60)
    assert seen == pytest.approx([0, 5, 10], abs=0.01)


async def test_a_failing_key_backs_off_and_does_not_hold_up_the_others():
    queue, failing, fine = WorkQueue[str](), [], []

    async def work(key: str) -> float | None:
        now = asyncio.get_running_loop().time()
        if key == "bad":
            failing.append(now)
            raise RuntimeError("no")
        fine.append(now)
        return 1.0

    queue.add("bad")
    queue.add("good")
    await run_for(queue, work, 9.9, workers=1)
    assert failing == pytest.approx([0, 0.5, 1.5, 3.5, 7.5], abs=0.01)
    assert len(fine) == 10


async def test_success_forgets_earlier_failures():
    queue, seen = WorkQueue[str](), []

    async def work(key: str) -> float | None:
        seen.append(asyncio.get_running_loop().time())
        if len(seen) in (1, 2, 4):
            raise RuntimeError("no")
        return 1.0 if len(seen) == 3 else None

    queue.add("a")
    await run_for(queue, work, 60)
    assert seen == pytest.approx([0, 0.5, 1.5, 2.5, 3.0], abs=0.01)


async def test_a_worker_that_is_cancelled_while_its_work_fails_ends():
    """Something took the cancellation for its own, as a TaskGroup does whose child fails at that moment: `work` raises
    another error. Seen failing: it worked on, without the Lease."""
    queue = WorkQueue[str]()
    worked = 0

    async def work(_key: str) -> float | None:
        nonlocal worked
        worked += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise RuntimeError("a child failed") from None
        return None

    queue.add("a")
    queue.add("b")
    task = asyncio.create_task(queue.run(work, 1))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.done()
    assert worked == 1
