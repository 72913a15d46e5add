"""The table of the traffic's numbers and its charts are made of the rows that can be measured."""

from __future__ import annotations

from pathlib import Path

from benchmarks.control.result import Result, load_all
from benchmarks.traffic import charts
from benchmarks.traffic.__main__ import ROWS
from benchmarks.traffic.numbers import ROWS as TOLD
from benchmarks.traffic.numbers import write


def test_every_row_of_the_table_can_be_measured_and_none_is_left_out() -> None:
    assert set(TOLD) == set(ROWS)


def test_a_row_that_missed_or_was_not_measured_stays_in_the_table(tmp_path: Path) -> None:
    missed = Result("rolled", "rollouts", "0 failed", "3 failed of 9", kept=False, suite="traffic")
    write({"rolled": missed}, tmp_path / "numbers.md")
    text = (tmp_path / "numbers.md").read_text()
    assert "| rollouts | 0 failed | 3 failed of 9 | **missed** | `python -m benchmarks.traffic rolled` |" in text
    assert text.count("not measured yet") >= len(ROWS) - 1


def test_charts_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    rolled = Result("rolled", "", "", "0 failed of 30,639 (p50 24 ms, p99 59 ms)", kept=True, suite="traffic")
    assert [file.name for file in charts.write({"rolled": rolled}, tmp_path)] == ["traffic-faults.svg"]


def test_the_kept_results_are_drawn(tmp_path: Path) -> None:
    written = charts.write(load_all(suite="traffic"), tmp_path)
    assert all(file.stat().st_size > 1000 for file in written)
    assert "traffic-faults.svg" in {file.name for file in written}
