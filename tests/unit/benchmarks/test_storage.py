"""What the benchmark of storage says of its runs."""

from __future__ import annotations

import sys
import urllib.request

import pytest

from benchmarks.bench_storage import OURS, Run, measured, ratio, relay, table
from model_store import FileServer, serving


def runs(**seconds: list[float]) -> dict[str, list[Run]]:
    return {way: [Run(each, 1.0, 30.0) for each in all_] for way, all_ in seconds.items()}


def test_ours_is_compared_with_the_quickest_other_by_medians() -> None:
    assert ratio(runs(**{OURS: [2.0, 1.0, 9.0], "slow": [4.0], "quick": [1.0, 1.5, 1.6]})) == pytest.approx(0.75)


def test_the_table_shows_medians_ranges_and_the_highest_memory() -> None:
    found = {
        "megabytes": 1024,
        "machine": "2 cores",
        "load_average_before": 0.1,
        "runs": {OURS: [vars(Run(2.0, 1.5, 30.0)), vars(Run(4.0, 2.5, 40.0)), vars(Run(2.5, 2.0, 35.0))]},
        "killed_half_way": [{"sent_again_mib": 8.0}, {"sent_again_mib": 12.0}],
        "of_the_best": 0.95,
    }
    lines = table(found).splitlines()
    assert lines[2] == f"| {OURS} | 2.50 (2.00 to 4.00) | 410 | 2.00 | 40 |"
    assert "10.0 MiB sent twice (8.0 to 12.0)" in lines[-1]


def test_a_programs_memory_and_cpu_time_are_its_own() -> None:
    burn = "import time\nx = bytearray(b'x') * 50_000_000\nwhile time.process_time() < 0.3: pass\nprint('7.5')"
    run = measured([sys.executable, "-c", burn])
    assert 0.3 <= run.cpu_seconds < 5
    assert 47 < run.anonymous_mib < 90
    assert run.seconds == 7.5, "what ours says of itself"


def test_the_relay_counts_what_the_source_sends() -> None:

    with (
        serving(FileServer(b"x" * 100_000)) as server,
        relay(server.url.removesuffix("/models/digits.onnx")) as counted,
    ):
        urllib.request.urlopen(counted.endpoint + "/models/digits.onnx").read()  # noqa: S310 - on loopback
        assert 100_000 <= counted.sent < 101_000
