"""A stage's figures, and how they are told: table, notes, JSON, picture, progress."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from array import array
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_server.loadtest import chart, command, progress, report
from model_server.loadtest.plan import LoadTestError
from model_server.loadtest.record import End, Quantiles, Record, Reply, Stage
from model_server.loadtest.report import Result, Table

NOTHING = Quantiles(None, None, None)
STAGE = Record(clients=5, starts=0, ends=10, within=1).stage(10, cpu_seconds=0.5)
"""Five clients and not one request."""


def result(*stages: Stage, label: str = "inflight") -> Result:
    return Result(label, "http://server/v2/models/m/infer", 2, 2, 10, "when it says", 30, "2026-01-01", False, stages)


def filled(*replies: Reply, seconds: float = 0.1, clients: int = 5) -> Stage:
    """A stage of ten seconds in which these came back, each after `seconds`."""
    record = Record(clients=clients, starts=0, ends=10, within=1)
    for number, reply in enumerate(replies):
        record.add(number % clients, reply, wanted=0, sent=0, ended=seconds)
    return record.stage(10, cpu_seconds=0.5)


def test_percentiles_are_times_that_occurred() -> None:
    hundred = array("d", [number / 1000 for number in range(100, 0, -1)])
    assert Quantiles.of(hundred) == Quantiles(50, 90, 99)
    assert Quantiles.of(array("d")) == NOTHING


@given(st.lists(st.sampled_from(End), max_size=60))
def test_every_request_counts_exactly_once(ends: list[End]) -> None:
    stage = filled(*(Reply(end, "why") for end in ends))
    parts = (stage.answers, stage.refusals, sum(stage.timeouts.values()), sum(stage.errors.values()))
    assert sum(parts) == stage.requests == len(ends)
    assert 0 <= stage.timeout_ratio + stage.refusal_ratio <= 1.0001
    assert stage.answers_per_second == stage.answers / 10


@settings(max_examples=25)
@given(st.lists(st.builds(Reply, st.sampled_from(End), st.text(max_size=3), st.text(max_size=3)), max_size=20))
def test_results_survive_json(replies: list[Reply]) -> None:
    original = result(filled(*replies), STAGE)
    assert Result.of_json(original.as_json()) == original


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"stages": [{}]}', '{"stages": 5}', "null"])
def test_other_json_is_no_result(text: str) -> None:
    with pytest.raises(LoadTestError, match="no result"):
        Result.of_json(text)


def test_the_table_shows_a_dash_where_nothing_was_measured() -> None:
    table = Table(goodput=False, recovery=True)
    stage = filled(Reply(End.ANSWER), Reply(End.REFUSAL), Reply(End.REFUSAL), Reply(End.ERROR, "500"))
    assert [table.head(), table.row(stage), table.row(replace(STAGE, recovery_seconds=1234.56))] == [
        "         answers  response                      timed           refusal           until answered  recovered\n"
        "clients    per s    p50 ms   p90 ms   p99 ms      out  refused   p99 ms   errors    p50 / p99 ms    after s",
        "      5      0.1       100      100      100     0.0%    50.0%      100        1       100 / 100          –",
        "      5      0.0         –        –        –     0.0%     0.0%        –        0               –    1,234.6",
    ]


def test_goodput_has_a_column_when_there_is_a_goal() -> None:
    assert "good" in Table(goodput=True, recovery=False).head()
    assert "recovered" not in Table(goodput=True, recovery=False).head()


def test_notes_name_what_went_wrong_and_who_answered() -> None:
    stage = filled(
        Reply(End.ANSWER, variant="a", revision="r1"),
        Reply(End.ANSWER, variant="b", cached=True),
        Reply(End.TIMEOUT, "client"),
        Reply(End.ERROR, "500 model_error"),
        Reply(End.ERROR, "500 model_error"),
    )
    assert report.notes(result(stage, stage)) == [
        "errors: 4 × 500 model_error",
        "timeouts: 2 × client",
        "answers by variant: 2 × a/r1, 2 × b",
        "2 answers were not computed but shared or kept by the server's cache: all requests are alike",
        "3 of 5 clients had no answer at all",
        "3 of 5 clients had no answer at all",
    ]


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        pytest.param(
            {"generator_cpu": 0.95}, "the figures are its limit, not the server's", id="generator-at-its-limit"
        ),
        pytest.param({"generator_lag_ms": 50.0}, "too busy for exact times", id="machine-too-busy"),
        pytest.param({"generator_cpu": 0.5, "generator_lag_ms": 1.0}, None, id="nothing-to-say"),
    ],
)
def test_a_generator_that_is_the_limit_says_so(change: dict[str, float], warning: str | None) -> None:
    said = report.notes(result(replace(STAGE, **change)))
    assert [warning in line for line in said if warning] == ([True] if warning else [])
    assert bool(said) == bool(warning)


@pytest.fixture(scope="module")
def overload() -> list[Result]:
    """One server that refuses, one that answers nobody."""
    refusing = filled(Reply(End.ANSWER), Reply(End.REFUSAL))
    collapsed = filled(Reply(End.TIMEOUT, "client"))
    return [result(refusing, collapsed, label="naive"), result(refusing, refusing)]


def test_an_svg_chart_is_the_same_every_time_and_names_both_servers(overload: list[Result], tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        chart.draw(overload, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    text = (tmp_path / "a.svg").read_text()
    assert all(f"<!-- {word} -->" in text for word in ("naive", "inflight", "clients give up after 2 s", "timed out"))


def test_a_png_chart_is_drawn(overload: list[Result], tmp_path: Path) -> None:
    chart.draw(overload[:1], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


async def test_progress_is_shown_on_a_terminal_only() -> None:
    record = Record(clients=5, starts=0, ends=10, within=1)
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        async with progress.shown(stream, record, "[1/2]"):
            await asyncio.sleep(0.01)
        assert ("[1/2] 5 clients" in stream.getvalue()) == shown


def test_the_progress_line_tells_how_it_goes() -> None:
    record = Record(clients=5, starts=100, ends=110, within=1)
    for reply in (Reply(End.ANSWER), Reply(End.ANSWER), Reply(End.TIMEOUT, "client")):
        record.add(0, reply, wanted=100, sent=100, ended=104)
    assert progress.line(record, "[2/6]", at=105) == (
        "[2/6] 5 clients ━━━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 5 of 10 s · 0.4 answers/s · 1 timed out"
    )


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("aiohttp", ["http://127.0.0.1:1/"]),
        ("matplotlib", ["http://127.0.0.1:1/", "--output", "chart.png"]),
    ],
)
def test_a_missing_package_is_told_in_one_line_with_the_command_that_installs_it(
    missing: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == missing else object())
    assert command.main(arguments) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"model-server loadtest: {missing} is needed")
    assert told.endswith("install it with: pip install 'inflight-model-server[loadtest]'\n")
    assert told.count("\n") == 1


def test_the_table_needs_no_matplotlib_and_serving_needs_neither() -> None:
    program = """
import sys
from model_server import __main__
assert not any(name.startswith("model_server.loadtest") for name in sys.modules)
import model_server.loadtest.stages
sys.exit("matplotlib" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=20).returncode == 0


def test_results_that_can_not_be_read_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"hello": "world"}))
    drawn = ["--output", str(tmp_path / "c.svg")]
    assert command.main(["--compare", str(tmp_path / "a.json"), *drawn]) == 1
    assert command.main(["--compare", str(tmp_path / "b.json"), *drawn]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "a.json: is no result written by --json" in first
    assert "No such file" in second


def test_earlier_results_are_drawn_without_sending_anything(overload: list[Result], tmp_path: Path) -> None:
    for number, one in enumerate(overload):
        (tmp_path / f"{number}.json").write_text(one.as_json())
    files = [str(tmp_path / "0.json"), str(tmp_path / "1.json")]
    assert command.main(["--compare", *files, "--output", str(tmp_path / "c.svg")]) == 0
    assert "naive" in (tmp_path / "c.svg").read_text()
