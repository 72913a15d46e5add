"""A load step: the phases are played, the scale is looked at, the table tells both."""

import asyncio
import math

import pytest
from aiohttp import web

from inflight_demo import loadstep
from inflight_demo.loadstep import Phase, Sample, Trace
from inflight_probe.infer import Target
from inflight_probe.load import Outcome, Reply
from inflight_probe.scaling import Scale, quantity


class World:
    """A model that answers in 10 ms, and an API server whose HPA wants as many replicas as are in flight."""

    def __init__(self):
        self.inside = 0
        self.most = 0

    async def infer(self, _request):
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.01)
        self.inside -= 1
        answer = {"outputs": [{"name": "y", "data": [1.0]}]}
        return web.json_response(answer, headers={"x-inflight-variant": "main"})

    async def get(self, kind, _namespace, _name):
        if kind == "HorizontalPodAutoscaler":
            return {"status": {"desiredReplicas": self.inside}}
        return {"status": {"replicas": self.inside, "readyReplicas": self.inside}}

    async def request(self, _method, _path):
        return {"items": [{"value": f"{self.inside * 1000}m"}]}


@pytest.fixture
async def world():
    world, app = World(), web.Application()
    app.router.add_post("/v2/models/m/infer", world.infer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    world.target = Target(f"http://127.0.0.1:{runner.addresses[0][1]}", "m")
    yield world
    await runner.cleanup()


async def test_phases_add_up_and_every_answer_counts_from_the_start_of_the_step(world, monkeypatch):
    monkeypatch.setattr(loadstep, "_EVERY", 0.02)
    phases = [Phase(0, 0.4, 1), Phase(0.2, 0.4, 3)]
    trace = await loadstep.play(world, world.target, ("demo", "m-main-1"), phases)
    assert world.most == 4
    assert {s.in_flight for s in trace.samples} - {0} == {1, 4}, "0 where a look was later than the last phase"
    assert all(o.ok for o in trace.outcomes)
    early = [o for o in trace.outcomes if o.due < 0.18]
    assert len(early) < len(trace.outcomes) / 3, "the second phase's requests are due after 0.2 s"
    assert max(o.due for o in trace.outcomes) < 0.41


async def test_a_step_ends_early_when_there_is_enough(world, monkeypatch):
    monkeypatch.setattr(loadstep, "_EVERY", 0.02)

    def enough(samples):
        return len(samples) == 3

    trace = await loadstep.play(world, world.target, ("demo", "r"), [Phase(0, 60, 1)], enough=enough)
    assert len(trace.samples) == 3


async def test_an_api_server_that_fails_ends_the_step(world, monkeypatch):
    async def broken(*_):
        raise RuntimeError("etcd is gone")

    world.get = broken
    with pytest.raises(RuntimeError, match="etcd is gone"):
        await loadstep.play(world, world.target, ("demo", "r"), [Phase(0, 60, 1)])


def samples(*desired_ready: tuple[int, int]) -> list[Sample]:
    return [Sample(float(at), 8, Scale(8.0, d, r, r)) for at, (d, r) in enumerate(desired_ready)]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param([(1, 1), (8, 8), (8, 8), (8, 8)], True, id="held for two seconds"),
        pytest.param([(8, 8)], False, id="one look is no holding"),
        pytest.param([(8, 8), (8, 7), (8, 8)], False, id="not all were ready"),
        pytest.param([(8, 8), (9, 8), (8, 8)], False, id="it wanted more"),
        pytest.param([], False, id="nothing seen"),
    ],
)
def test_a_scale_is_reached_when_it_is_held(seen, expected):
    assert loadstep.reached(samples(*seen), 8, hold=2) is expected


def test_a_row_tells_the_scale_and_the_last_seconds_only():
    outcomes = [Outcome(n, n, 0.1, Reply(200)) for n in range(10)] + [Outcome(10, 9.5, 0.1, Reply(429))]
    trace = Trace(outcomes, [Sample(10.0, 8, Scale(math.nan, 1, 1, 1))])
    cells = loadstep.row(trace, since=5).split()
    assert cells == ["10", "8", "–", "1", "1", "1", "100", "100", "1"]
    assert len(loadstep.row(trace, 5)) == len(loadstep.header())


@pytest.mark.parametrize(("text", "value"), [("8", 8), ("2700m", 2.7), ("1k", 1000), ("0", 0), ("1500000u", 1.5)])
def test_quantities_are_numbers(text, value):
    assert quantity(text) == pytest.approx(value)


def test_what_is_no_quantity_is_refused():
    with pytest.raises(ValueError, match="eight"):
        quantity("eight")
