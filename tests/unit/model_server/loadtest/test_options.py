from __future__ import annotations

from pathlib import Path

import pytest

from model_server.loadtest import options
from model_server.loadtest.plan import Plan

URL = "http://server:8080/v2/models/digits"


def test_defaults_are_the_documented_ones() -> None:
    plan = options.to_plan(options.parse([URL]))
    assert plan == Plan(
        clients=(1, 2, 5, 10, 20, 50),
        timeout_seconds=2,
        duration_seconds=30,
        within_seconds=2,
        retry_seconds=None,
        settle_seconds=30,
    )


def test_every_option_reaches_the_plan() -> None:
    line = "--clients 3,4 --timeout 1.5 --duration 7 --within 0.5 --retry 0.1 --settle 0"
    assert options.to_plan(options.parse([URL, *line.split()])) == Plan((3, 4), 1.5, 7, 0.5, 0.1, 0)


def test_goodput_is_within_the_timeout_unless_told() -> None:
    assert options.to_plan(options.parse([URL, "--timeout", "7"])).within_seconds == 7


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        pytest.param(["ftp://server/x"], "must start with http", id="another-scheme"),
        pytest.param(["http:///x"], "name a host", id="no-host"),
        pytest.param(["server:8080/x"], "must start with http", id="no-scheme"),
        pytest.param(["http://server:99999/"], "must start with http", id="impossible-port"),
        pytest.param(["http://server/\nx"], "must start with http", id="control-character"),
        pytest.param([URL, "--clients", "1,,2"], "whole numbers", id="empty-count"),
        pytest.param([URL, "--clients", "0"], "from 1 to 1000", id="no-clients"),
        pytest.param([URL, "--clients", "1001"], "from 1 to 1000", id="too-many-clients"),
        pytest.param([URL, "--clients", ",".join("1" * 51)], "at most 50", id="too-many-stages"),
        pytest.param([URL, "--duration", "3601"], "from 0.001 to 3600", id="unbounded-duration"),
        pytest.param([URL, "--duration", "nan"], "number of seconds", id="not-a-number"),
        pytest.param([URL, "--timeout", "0"], "from 0.001 to 600", id="no-time"),
        pytest.param([URL, "--retry", "never"], "number of seconds", id="unknown-retry"),
        pytest.param([URL, "--header", "no colon"], "NAME: VALUE", id="header-without-colon"),
        pytest.param([URL, "--header", "x: a\r\ny: b"], "NAME: VALUE", id="header-with-a-line-break"),
        pytest.param([URL, "--output", "chart.pdf"], "must end in .png or .svg", id="other-picture"),
        pytest.param([URL, "--json", "nowhere/at/all.json"], "directory that exists", id="missing-directory"),
        pytest.param([], "give a URL", id="nothing-to-do"),
        pytest.param(["--compare", "a.json"], "give a URL", id="nothing-to-draw-to"),
    ],
)
def test_what_can_not_work_is_refused_before_anything_is_sent(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        options.parse(arguments)
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


def test_headers_are_names_in_lower_case_and_values() -> None:
    assert options.parse([URL, "--header", "Host: digits.demo"]).header == [("host", "digits.demo")]


def test_results_can_be_drawn_without_a_new_test(tmp_path: Path) -> None:
    read = options.parse(["--compare", "a.json", "b.json", "--output", str(tmp_path / "c.SVG")])
    assert (read.url, read.compare, read.output) == (None, ["a.json", "b.json"], tmp_path / "c.SVG")
