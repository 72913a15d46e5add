"""The judgements behind the numbers."""

import asyncio
import math
import time
from contextlib import asynccontextmanager

import pytest

from benchmarks.control import change, refusal, step
from benchmarks.control.arrivals import Arrivals, watching
from benchmarks.control.routers import Router
from benchmarks.control.routing import _ready_addresses
from benchmarks.control.world import World
from inflight_demo.loadstep import Phase, Sample, Trace
from inflight_probe.load import Outcome, Reply, Run
from inflight_probe.scaling import Scale

PHASES = [Phase(0, 30, 1), Phase(30, 120, 8), Phase(120, 240, 1)]


def sample(at, metric, desired=1):
    in_flight = next(p.clients for p in PHASES if p.start <= at < p.end)
    return Sample(at, in_flight, Scale(metric, desired, desired, desired))


@pytest.mark.parametrize(
    ("samples", "error"),
    [
        pytest.param([sample(20, 1.0), sample(60, 8.0)], 0, id="true"),
        pytest.param([sample(60, 8.4)], 5, id="a little high"),
        pytest.param([sample(31, 1.0), sample(60, 8.0)], 0, id="a phase younger than 10 s is not judged"),
        pytest.param([sample(130, 4.0)], 300, id="high after the load went"),
        pytest.param([sample(60, math.nan)], 100, id="no reading is no metric"),
    ],
)
def test_the_metric_is_judged_when_a_phase_is_ten_seconds_old(samples, error):
    assert step.worst_error(samples, PHASES) == pytest.approx(error)


def test_a_load_step_is_kept_only_with_everything_in_time():
    good = [sample(25, 1.0), sample(45, 8.0, 8), sample(135, 1.0, 8), sample(185, 1.0, 1)]
    trace = Trace([Outcome(0, 0, 0.1, Reply(200))], good)
    assert step._result(trace, PHASES, quick=False).kept
    late = [s if s.at != 45 else sample(80, 8.0, 8) for s in good]
    early = [*good[:2], sample(130, 1.0, 1), *good[3:]]
    over = [*good[:2], sample(100, 8.0, 10), *good[2:]]
    for bad in (late, early, over):
        assert not step._result(Trace(trace.outcomes, bad), PHASES, quick=False).kept
    lost = Trace([Outcome(0, 0, 0.1, Reply(0, "gone"))], good)
    assert not step._result(lost, PHASES, quick=False).kept


def test_the_first_time_of_something_that_never_was_is_infinite():
    assert step.first([sample(60, 8.0)], 30, lambda s: s.scale.desired == 8) == math.inf


async def test_the_last_arrival_is_the_time_of_all():
    arrivals = Arrivals()
    asyncio.get_running_loop().call_later(0.05, arrivals.note, "late")
    arrivals.note("soon")
    arrivals.note("soon")
    began = time.perf_counter()
    last = await arrivals.all_of(["soon", "late"], seconds=1)
    assert 0.04 < last - began < 0.5


async def test_what_did_not_arrive_is_named():
    with pytest.raises(TimeoutError, match="missing"):
        await Arrivals().all_of(["missing"], seconds=0.01)


class Watched:
    @asynccontextmanager
    async def watch(self, kind, _namespace):
        async def events():
            yield {"type": "ADDED", "object": {"kind": kind, "name": "a"}}
            yield {"type": "DELETED", "object": {"kind": kind, "name": "b"}}

        yield events()


async def test_watches_note_what_is_there_and_not_what_goes():
    async with watching(Watched(), "bench", {"Service": lambda o: [(o["kind"], o["name"])]}) as arrivals:
        await arrivals.all_of([("Service", "a")], seconds=1)
    assert ("Service", "b") not in arrivals


@pytest.mark.parametrize(
    ("route", "weights"),
    [
        pytest.param({"route": {"cluster": "demo/a"}}, {}, id="one backend"),
        pytest.param(
            {
                "route": {
                    "weighted_clusters": {
                        "clusters": [{"name": "a", "weight": 95}, {"name": "b", "weight": 5}],
                        "runtime_key_prefix": "v1",
                    }
                }
            },
            {"a": 90, "b": 10},
            id="two backends",
        ),
        pytest.param({"direct_response": {"status": 503}}, {}, id="nobody"),
    ],
)
async def test_weights_are_read_from_envoys_own_words(route, weights, monkeypatch):
    host = {"name": "demo/digits", "routes": [route]}
    told = {
        "/config_dump": {"configs": [{"route_config": {"name": "inflight", "virtual_hosts": [host]}}]},
        "/runtime": {"entries": {"v1.a": {"final_value": "90"}, "v1.b": {"final_value": "10"}, "v0.a": {}}},
    }
    router = Router("r", None)

    async def get(path, **_query):
        return told[path]

    monkeypatch.setattr(router, "_get", get)
    assert await router.weights(await router.split("demo", "digits")) == weights
    assert await router.split("demo", "other") == {}


def test_only_ready_endpoints_on_the_http_port_count():
    found = {
        "ports": [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": True}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
        ],
    }
    assert list(_ready_addresses(found)) == ["10.0.0.1:8080"]


def test_the_chart_shows_every_request(tmp_path):
    replies = [Reply(200), Reply(429, "queue_full"), Reply(0, "client timeout")]
    run = Run([Outcome(n, n, 0.5, reply) for n, reply in enumerate(replies)], 3.0)
    assert [refusal.kind(o) for o in run.outcomes] == ["answered", "refused", "timed out or lost"]
    refusal.draw([run, run], tmp_path / "chart.svg")
    drawn = (tmp_path / "chart.svg").read_text()
    assert all(f"{word}: 1" in drawn for word in ("answered", "refused", "lost"))


def test_a_change_is_measured_from_its_beginning():
    run = Run([Outcome(n, n, 0.1, Reply(200 if n else 429)) for n in range(10)], 10.0)
    part = change._since(run, 4.0)
    assert [o.number for o in part.outcomes] == [4, 5, 6, 7, 8, 9]
    assert part.rate == 1.0


@pytest.mark.parametrize(
    ("failed", "count", "fewest", "kept"),
    [
        pytest.param(0, 10_000, 5, True, id="nothing lost and pods enough"),
        pytest.param(1, 10_000, 5, False, id="one lost"),
        pytest.param(0, 9_999, 5, False, id="too few to promise anything"),
        pytest.param(0, 10_000, 4, False, id="too few pods for a moment"),
    ],
)
def test_a_change_is_kept_when_nothing_was_lost(failed, count, fewest, kept):
    replies = [Reply(503 if n < failed else 200) for n in range(count)]
    load = change.Load(0.0, Run([Outcome(n, n, 0.1, r) for n, r in enumerate(replies)], 1.0), {change._CHANGED: 0.0})
    world = World(kube=None, router="", catalogue=None, quick=False)
    result = change._result(
        world, "replaced", "replaced", load, {"fewest_ready_pods": fewest, "needed": 5, "target": 2}
    )
    assert result.kept is kept


@pytest.mark.parametrize(
    ("replies", "kept"),
    [
        pytest.param([Reply(200), Reply(429, "queue_full")], True, id="answers and refusals"),
        pytest.param([Reply(200), Reply(504, "deadline")], False, id="a timeout"),
        pytest.param([Reply(200), Reply(0, "client timeout")], False, id="no answer"),
    ],
)
def test_overload_is_kept_when_nothing_times_out(replies, kept):
    run = Run([Outcome(n, n, 0.5, reply) for n, reply in enumerate(replies)], 3.0)
    assert refusal._result([run, run], 60, quick=False).kept is kept
