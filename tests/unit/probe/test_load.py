"""The load generators against a real server on loopback that misbehaves on purpose."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from inflight_probe.infer import Target, output, request_body, sender, session
from inflight_probe.load import Outcome, Reply, Run, closed_loop, open_loop, steady, window

ONE = [request_body("x", [[1.0]])]


def answer(value=1.0, variant="stable", status=200):
    body = {"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [value]}]}
    if status != 200:
        body = {"error": "no room", "code": "queue_full"}
    return web.json_response(body, status=status, headers={"x-inflight-variant": variant} if variant else {})


@asynccontextmanager
async def serving(handle) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v2/models/m/infer", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def expect_one(_number, body):
    value = output(body, "y")
    if value != 1.0:
        raise ValueError(f"{value} is not 1")
    return value


async def run(handle, *, patience=5.0, **loop) -> Run:
    async with serving(handle) as url, session(timeout_seconds=patience) as http:
        send = sender(http, Target(url, "m"), ONE, expect_one)
        return await (open_loop(send, **loop) if "rate" in loop else closed_loop(send, **loop))


async def drop_the_connection(request):
    request.transport.close()
    await asyncio.sleep(0)
    return web.Response()


async def never(_request):
    await asyncio.sleep(0.4)
    return answer()


def replying(response):
    async def handle(_request):
        return response()

    return handle


@pytest.mark.parametrize(
    ("handle", "status", "said"),
    [
        pytest.param(replying(answer), 200, "", id="a right answer"),
        pytest.param(replying(lambda: answer(2.0)), 200, "wrong body: 2.0 is not 1", id="a wrong number"),
        pytest.param(replying(lambda: answer(variant="")), 200, "no x-inflight-variant header", id="nobody says who"),
        pytest.param(replying(lambda: web.Response(text="{}")), 200, "no x-inflight", id="a stranger's 200"),
        pytest.param(replying(lambda: answer(status=429)), 429, "queue_full", id="a refusal keeps its code"),
        pytest.param(replying(lambda: web.Response(status=503, text="gone")), 503, "gone", id="plain text"),
        pytest.param(drop_the_connection, 0, "ServerDisconnectedError", id="a connection cut"),
        pytest.param(never, 0, "client timeout", id="no answer in time"),
    ],
)
async def test_every_request_ends_as_one_outcome(handle, status, said):
    patience = 0.2 if handle is never else 10  # a busy machine makes others wait too
    done = await run(handle, patience=patience, rate=1000, count=3)
    assert [o.number for o in done.outcomes] == [0, 1, 2]
    assert {o.reply.status for o in done.outcomes} == {status}
    assert all(o.reply.error.startswith(said) for o in done.outcomes)
    assert len(done.ok) == (3 if (status, said) == (200, "") else 0)


async def test_a_failed_request_is_not_sent_again():
    arrived = 0

    async def refuse(_request):
        nonlocal arrived
        arrived += 1
        return answer(status=503)

    done = await run(refuse, rate=1000, count=20)
    assert arrived == len(done.outcomes) == len(done.refused) == 20
    assert done.why() == {"503 queue_full": 20}


async def test_the_open_loop_keeps_its_rate_while_nothing_is_answered():
    """Nothing is answered before all have come: a loop that waited for answers would never end."""
    arrived, all_came = 0, asyncio.Event()

    async def held(_request):
        nonlocal arrived
        arrived += 1
        if arrived == 60:
            all_came.set()
        await all_came.wait()
        return answer()

    began = asyncio.get_running_loop().time()
    done = await run(held, rate=200, count=60)
    assert len(done.ok) == 60
    assert asyncio.get_running_loop().time() - began > 59 / 200, "not faster than its rate"


async def test_a_stall_is_seen_by_every_request_that_was_due_in_it():
    gate = asyncio.Event()

    async def stalled(number: int) -> Reply:
        if number == 0:
            await asyncio.sleep(0.01)
            _block(0.2)
            gate.set()
        await gate.wait()
        return Reply(200)

    done = await open_loop(stalled, rate=100, count=10)
    late = [o for o in done.outcomes if o.seconds > 0.1]
    assert len(late) >= 9, "requests due during the stall count from when they were due, not when they were sent"


def _block(seconds: float) -> None:
    import time

    time.sleep(seconds)


async def test_the_open_loop_ends_when_told():
    stop, sent = asyncio.Event(), 0

    async def answered(number: int) -> Reply:
        nonlocal sent
        sent = number + 1
        if number == 9:
            stop.set()
        return Reply(200)

    done = await open_loop(answered, rate=100, stop=stop)
    assert 10 <= len(done.ok) == sent <= 12, "what was due before it could look is still sent"


async def test_the_closed_loop_has_at_most_its_clients_in_flight():
    inside = most = 0

    async def count(_request):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.005)
        inside -= 1
        return answer()

    done = await run(count, clients=4, count=40)
    assert (len(done.ok), most) == (40, 4)


async def test_a_closed_loop_without_an_end_is_refused():
    with pytest.raises(ValueError, match="count or seconds"):
        await closed_loop(replying(answer), clients=1)


def test_a_window_holds_the_answers_that_came_in_it():
    outcomes = [Outcome(n, due=n, seconds=0.5, reply=Reply(200)) for n in range(10)]
    part = window(outcomes, 2, 5)
    assert [o.number for o in part.outcomes] == [2, 3, 4]
    assert part.rate == 1.0


def test_variants_are_counted_over_right_answers_only():
    replies = [Reply(200, variant="a"), Reply(200, "wrong body", "a"), Reply(503, variant="b")]
    done = Run([Outcome(n, 0, 0.001 * n, reply) for n, reply in enumerate(replies)], 1.0)
    assert done.variants() == {"a": 1}
    assert done.why() == {"200 wrong body": 1, "503": 1}


def test_a_request_body_is_a_v2_tensor():
    body = json.loads(request_body("images", [[1, 2], [3, 4]]))
    assert body == {"inputs": [{"name": "images", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]}


async def test_a_steady_load_ends_with_its_block_and_waits_for_every_answer():
    async def slow(_request):
        await asyncio.sleep(0.1)
        return answer()

    async with serving(slow) as url, session() as http:
        async with steady(sender(http, Target(url, "m"), ONE, expect_one), rate=100) as done:
            await asyncio.sleep(0.2)
        assert 15 <= len(done.ok) <= 25
        assert done.failed == []
        await asyncio.sleep(0.05)
        assert len(done.ok) <= 25, "nothing is sent after the block"


async def test_a_refused_client_waits_before_it_comes_back():
    done = await run(replying(lambda: answer(status=429)), clients=2, seconds=0.3, pause=0.1)
    assert 4 <= len(done.refused) <= 8
