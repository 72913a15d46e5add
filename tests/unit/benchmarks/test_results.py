"""What docs/numbers.md says is what was measured, misses included."""

import pytest

from benchmarks.control import numbers
from benchmarks.control.__main__ import ROWS
from benchmarks.control.result import Result, load_all, save, stamped


def result(row="applied", *, kept=True, quick=False, measured="12 ms"):
    return Result(row, f"what {row} is", "<= 500 ms", measured, kept, {"milliseconds": [12]}, quick)


def test_a_result_comes_back_as_it_was_kept(tmp_path):
    kept = stamped(result())
    save(kept, tmp_path)
    assert load_all(tmp_path) == {"applied": kept}
    assert "cores" in kept.machine
    assert kept.when.endswith("UTC")


def test_a_quick_run_never_counts(tmp_path):
    save(result(measured="12 ms"), tmp_path)
    save(result(measured="1 ms", quick=True), tmp_path)
    assert load_all(tmp_path)["applied"].measured == "12 ms"


def test_every_promised_row_is_in_the_document_measured_or_not():
    text = numbers.document({"applied": result(), "split": result("split", kept=False, measured="5 sigma")})
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(lines) == len(numbers.ROWS)
    assert "| what applied is | <= 500 ms | 12 ms | kept | `python -m benchmarks.control applied` |" in lines
    assert "| what split is | <= 500 ms | 5 sigma | **missed** | `python -m benchmarks.control split` |" in lines
    assert sum("not measured yet" in line for line in lines) == len(numbers.ROWS) - 2


def test_every_row_of_the_document_can_be_measured():
    assert set(ROWS) | {"memory", "demo-cold", "demo-warm", "demo-up"} == set(numbers.ROWS)


@pytest.mark.parametrize(
    ("row", "command"),
    [("demo-cold", "python -m benchmarks.control demo"), ("memory", "python -m benchmarks.control memory")],
)
def test_a_result_says_how_it_is_measured_again(row, command):
    assert result(row).command == command
