"""How the benchmark of servers gets from what it saw to medians, and from medians to verdicts."""

import math
from itertools import product

import pytest

from benchmarks.server import promises, report
from benchmarks.server.clients import End, Load, Tried
from benchmarks.server.kept import Run, load, save
from benchmarks.server.models.chain import RECORD
from benchmarks.server.outcomes import Predicted, rate, read, values
from benchmarks.server.samples import Sample, Table, quantile, shown, spread
from benchmarks.server.servers import SERVERS
from benchmarks.server.verdicts import Goal, Verdict, best
from benchmarks.server.works import overload
from benchmarks.server.works.limits import LIMIT
from benchmarks.server.works.throughput import point

MANY = point(64)


def sample(server, values, *, work="W1", load=MANY, number=0):
    return Sample(work, server, load, number, values)


def table(*samples):
    return Table(list(samples))


def judged(measured, part):
    return next(verdict for verdict in promises.verdicts(measured) if part in verdict.what)


@pytest.mark.parametrize(
    ("found", "median", "lowest", "highest"),
    [
        pytest.param([3.0, 1.0, 2.0], 2.0, 1.0, 3.0, id="odd"),
        pytest.param([1.0, 2.0], 1.5, 1.0, 2.0, id="even"),
        pytest.param([1.0, math.nan], 1.0, 1.0, 1.0, id="what was not measured is left out"),
        pytest.param([1.0, math.inf, math.inf], math.inf, 1.0, math.inf, id="never is worse than any time"),
    ],
)
def test_a_spread_is_the_median_and_the_extremes(found, median, lowest, highest):
    got = spread(found)
    assert (got.median, got.lowest, got.highest) == (median, lowest, highest)


def test_nothing_measured_has_no_spread():
    assert spread([]) is None
    assert spread([math.nan]) is None


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_quantile_is_one_of_the_values(share, value):
    assert quantile(range(1, 101), share) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.08512, "0.0851"), (12.345, "12.3"), (45678.9, "45,679"), (0, "0"), (math.inf, "never"), (math.nan, "–")],
)
def test_numbers_are_shown_with_three_digits(value, text):
    assert shown(value) == text


def tried(identity, ended, end=End.ANSWER, took=0.1):
    return Tried(identity, ended - took, ended, end)


def counted(load_tried, predictions=(), *, started=100.0, ended=111.0):
    return values(Load(started, ended, 0, list(load_tried)), list(predictions), 0.5)


def test_goodput_leaves_the_ramp_out():
    got = counted([tried(number, 100.05 + number / 10) for number in range(110)])
    assert got["goodput"] == pytest.approx(10)
    assert got["p50_ms"] == pytest.approx(100)


def test_each_end_counts_once():
    ends = [End.ANSWER, End.REFUSAL, End.TIMEOUT, End.WRONG, End.ERROR]
    got = counted([tried(number, 105, end, took=0.004) for number, end in enumerate(ends)])
    assert (got["goodput"], got["refusals"]) == (pytest.approx(0.1), pytest.approx(0.1))
    assert (got["timeouts"], got["wrong"], got["errors"]) == (1, 1, 1)
    assert got["refusal_p99_ms"] == pytest.approx(4)


def test_predictions_whose_answer_nobody_took_are_wasted():
    answered = [tried(1, 103), tried(2, 104), tried(3, 105, End.TIMEOUT)]
    predictions = [Predicted(identity, 102, 102.5, 1) for identity in (1, 2, 3, 4)]
    assert counted(answered, predictions)["wasted_percent"] == 50


def test_a_prediction_that_ended_with_the_load_is_not_wasted():
    predictions = [Predicted(1, 105, 106, 1), Predicted(2, 110, 110.99, 1)]
    assert counted([tried(1, 106)], predictions)["wasted_percent"] == 0


def test_only_what_began_after_the_last_client_left_was_computed_after():
    predictions = [Predicted(1, 110.9, 111.2, 1), Predicted(2, 111.1, 111.3, 1), Predicted(3, 112, 113, 1)]
    got = counted([], predictions)
    assert (got["computed_after"], got["cpu_after_seconds"]) == (2, 0.5)


def test_the_limit_is_the_rate_between_the_first_and_the_last():
    assert rate([1.0, 1.1, 1.2, 1.3]) == pytest.approx(10)
    assert math.isnan(rate([1.0]))


def test_predictions_are_read_as_the_models_write_them(tmp_path):
    file = tmp_path / "predictions"
    assert read(file) == []
    whole = RECORD.pack(7, 1.5, 2.5, 3)
    file.write_bytes(whole + whole[:5])  # another process is writing
    assert read(file) == [Predicted(7, 1.5, 2.5, 3)]


@pytest.mark.parametrize(
    ("goal", "value", "kept"),
    [
        pytest.param(Goal(">=", 8, "x"), 8, True, id="just reached"),
        pytest.param(Goal(">=", 8, "x"), 7.99, False, id="just missed"),
        pytest.param(Goal("<=", 10, "ms"), 10, True, id="just within"),
        pytest.param(Goal("<=", 10, "ms"), 10.01, False, id="just over"),
        pytest.param(Goal("<=", 10, "ms"), math.inf, False, id="never"),
        pytest.param(Goal("<=", 10, "ms"), math.nan, None, id="not measured"),
    ],
)
def test_a_goal_is_kept_missed_or_not_judged(goal, value, kept):
    assert Verdict("W1", "", goal, value).kept is kept


def test_the_best_peer_is_neither_ours_nor_naive_nor_a_ceiling():
    measured = table(
        sample("ours", {"rps": 9000}),
        sample("plain", {"rps": 5000}),
        sample("constant", {"rps": 46000}),
        sample("litserve", {"rps": 1600}),
        sample("mlserver", {"rps": 2400}),
    )
    assert best(measured, "W1", MANY, "rps") == ("mlserver", 2400)
    assert best(measured, "W1", MANY, "rps", higher=False) == ("litserve", 1600)
    assert best(measured, "W1", point(1), "rps") is None


@pytest.mark.parametrize(("ours", "kept"), [(16_000, True), (15_900, False)])
def test_eight_times_the_best_peer_is_by_medians(ours, kept):
    rounds = [sample("mlserver", {"rps": rps}, number=number) for number, rps in enumerate((1000, 2000, 9000))]
    verdict = judged(table(sample("ours", {"rps": ours}), *rounds), "to the best peer's")
    assert verdict.kept is kept
    assert "MLServer 2,000 /s" in verdict.peer


def w2(server, load, number=0, **values):
    return sample(server, values, work="W2", load=load, number=number)


def everything_kept(**worse):
    """Ours under every load of W2, at its best but for `worse`."""
    values = {
        "goodput": 19.8,
        "of_limit_percent": 99,
        "p50_ms": 400,
        "p99_ms": 900,
        "refusal_p99_ms": 4,
        "timeouts": 0,
        "errors": 0,
        "wrong": 0,
        "wasted_percent": 0.5,
        "computed_after": 0,
        "rss_growth_mib": 0.2,
    } | worse
    loads = [named(count) for named, count in product((overload.again, overload.as_told), overload.CLIENTS)]
    loads += [overload.arriving(times) for times in overload.TIMES_CAPACITY]
    ours = [w2("ours", load, number, **values) for load in loads for number in range(3)]
    return [w2(LIMIT, LIMIT, goodput=20), w2("litserve", overload.again(50), goodput=3.7, p50_ms=1500), *ours]


def w2_verdicts(samples):
    return [verdict for verdict in promises.verdicts(table(*samples)) if verdict.work == "W2"]


def test_all_promises_of_overload_can_be_kept():
    assert all(verdict.kept for verdict in w2_verdicts(everything_kept()))


@pytest.mark.parametrize(
    ("worse", "missed"),
    [
        ({"of_limit_percent": 94}, "clients that come back when told"),
        ({"of_limit_percent": 84}, "clients that retry after 0.1 s"),
        ({"of_limit_percent": 89}, "10 x capacity"),
        ({"p50_ms": 601}, "p50 of answers"),
        ({"timeouts": 1}, "timeouts"),
        ({"wrong": 1}, "wrong answers"),
        ({"refusal_p99_ms": 11}, "p99 of refusals"),
        ({"wasted_percent": 1.1}, "for nobody"),
        ({"computed_after": 2}, "begun after"),
        ({"p99_ms": 2001}, "p99 of answers"),
        ({"rss_growth_mib": 6}, "growth of RSS"),
    ],
)
def test_each_promise_of_overload_can_be_missed(worse, missed):
    verdicts = w2_verdicts(everything_kept(**worse))
    assert any(missed in verdict.what and verdict.kept is False for verdict in verdicts)


def test_one_bad_load_is_enough():
    bad = w2("ours", overload.as_told(20), 9, of_limit_percent=50)
    good = [s for s in everything_kept() if not (s.server == "ours" and s.point == overload.as_told(20))]
    verdict = next(v for v in w2_verdicts([*good, bad]) if "come back when told" in v.what)
    assert (verdict.kept, verdict.value) == (False, 50)


def test_one_lost_request_in_one_round_is_not_lost_in_the_median():
    bad = w2("ours", overload.as_told(20), 9, timeouts=1)
    verdict = next(v for v in w2_verdicts([*everything_kept(), bad]) if "timeouts" in v.what)
    assert verdict.kept is False


def test_without_measurements_nothing_is_judged():
    verdicts = promises.verdicts(table())
    assert len(verdicts) > 20
    assert all(verdict.kept is None and verdict.said() == "not measured" for verdict in verdicts)


def run(work, *samples):
    calibration = {"chain_seconds": 0.1, "call_seconds": 0.011, "row_seconds": 0.00004}
    return Run(work, "now", "2 cores", "abc", 1, 6, calibration, {"ours": {"onnxruntime": "1"}}, [0.1], samples)


def test_a_run_comes_back_as_it_was_kept(tmp_path):
    file = tmp_path / "server.json"
    kept = run("W1", sample("ours", {"rps": 1.5, "p50_ms": math.inf}))
    save(run("W1", sample("ours", {"rps": 1})), file)
    save(kept, file)
    save(run("W2", w2("ours", overload.again(1), goodput=1)), file)
    assert set(load(file)) == {"W1", "W2"}
    assert load(file)["W1"].samples == list(kept.samples)


def test_what_was_not_measured_stays_so(tmp_path):
    save(run("W1", sample("ours", {"p50_ms": math.nan})), tmp_path / "server.json")
    (kept,) = load(tmp_path / "server.json")["W1"].samples
    assert math.isnan(kept.values["p50_ms"])


def test_the_report_shows_every_server_and_every_wrong_answer():
    samples = [sample(name, {"rps": 1000, "failed": 2, "wrong": 1}) for name in ("ours", "mlserver", "constant")]
    text = report.document({"W1": run("W1", *samples)})
    assert all(f"| {SERVERS[name].title} | 1,000 (1,000–1,000)" in text for name in ("ours", "mlserver", "constant"))
    assert text.count("| 3.00 |") == 3
    assert "**missed**" in text
