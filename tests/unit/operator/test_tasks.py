"""Tasks that must not end in silence, and what a failed group leaves behind."""

from __future__ import annotations

import asyncio
import gc

import pytest

from inflight_operator import runtime, settings
from inflight_operator.installation.lease import LostError
from inflight_operator.steps.context import together
from inflight_operator.tasks import apart, lasting
from memory_kube import MemoryKube

TOLD = {
    "INFLIGHT_NAMESPACE": "system",
    "INFLIGHT_MODEL_SERVER_IMAGE": "inflight/model-server:test",
    "INFLIGHT_POD_NAME": "a",
    "INFLIGHT_POD_IP": "10.0.0.1",
}


async def failed_group() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise LostError

    async with asyncio.TaskGroup() as group:
        group.create_task(fails())


async def test_after_a_failed_group_apart_a_task_is_as_before() -> None:
    async def catches() -> int:
        with pytest.raises(ExceptionGroup):
            await apart(failed_group())
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert await asyncio.create_task(catches()) == 0


async def test_what_is_apart_is_cancelled_with_its_caller() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def works() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    task = asyncio.create_task(apart(works()))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def cancels_itself() -> None:
    raise asyncio.CancelledError


async def ends() -> None:
    pass


async def fails() -> None:
    raise LostError


@pytest.mark.parametrize(
    ("work", "error", "said"),
    [
        pytest.param(cancels_itself, RuntimeError, "part cancelled itself", id="cancels itself"),
        pytest.param(ends, RuntimeError, "part ended", id="ends"),
        pytest.param(fails, LostError, None, id="fails"),
    ],
)
async def test_what_should_last_does_not_end_in_silence(work, error, said) -> None:
    with pytest.raises(error, match=said):
        await asyncio.wait_for(lasting("part", work()), 5)


async def test_what_lasts_is_cancelled_from_outside_in_peace() -> None:
    task = asyncio.create_task(lasting("part", asyncio.sleep(60)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Lease:
    """Won at once and lost at once; `marks` are how the task that wins was marked each time."""

    leading = True

    def __init__(self) -> None:
        self.marks: list[int] = []
        self.thrice = asyncio.Event()

    async def win(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.marks.append(task.cancelling())
        if len(self.marks) == 3:
            self.thrice.set()
            await asyncio.sleep(60)

    async def keep(self) -> None:
        await asyncio.sleep(0)
        raise LostError

    async def give_back(self) -> None:
        pass


async def test_an_operator_that_has_lost_the_lease_stands_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen failing: [0, 1, 1]. With Python 3.11.2, which Debian's image has, its next call that got no answer in three
    seconds then ended the task, and with etcd stopped twice no operator stood for leader any more."""
    lease = Lease()
    monkeypatch.setattr(runtime, "Candidate", lambda *_: lease)
    operator = runtime.Operator(settings.read(TOLD), MemoryKube())  # type: ignore[arg-type]
    task = asyncio.create_task(operator._lead())
    await asyncio.wait_for(lease.thrice.wait(), 10)
    assert lease.marks == [0, 0, 0]
    task.cancel()
    await asyncio.wait([task])


async def test_what_was_not_begun_when_all_is_cancelled_is_not_left_behind() -> None:
    """Seen failing: "coroutine was never awaited"."""
    task = asyncio.create_task(together(asyncio.sleep(1), asyncio.sleep(2)))
    await asyncio.sleep(0)  # it has begun, and what it does together has not
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gc.collect()
