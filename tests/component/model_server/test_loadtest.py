"""The load test as a process of its own against a real server, whose own counters must agree with it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from model_artifacts import write
from model_process import ROOT, ServerProcess, started

SLOW = """
import time

class Slow:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]

    def predict(self, inputs):
        time.sleep(0.05)
        return {"y": inputs["x"]}
"""


def command(server: ServerProcess, *options: str) -> list[str]:
    return [sys.executable, "-m", "model_server", "loadtest", f"{server.url}/v2/models/digits", *options]


def run(server: ServerProcess, *options: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(server, *options), env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def figures(file: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(file.read_text())
    return read


def test_answers_and_refusals_are_as_many_as_the_server_counted(tmp_path: Path) -> None:
    model = write(tmp_path, "slow.py", SLOW.encode())
    out = tmp_path / "out.json"
    with started("--model", f"digits={model}", "--format", "python", MAX_QUEUE="1") as server:
        load = ("--clients", "2,8", "--duration", "1.5", "--retry", "0.02", "--settle", "0")
        done = run(server, *load, "--json", str(out), "--output", str(tmp_path / "chart.png"))
        answered = server.metric('request_seconds_count{code="200"}')
        refused = server.metric('request_seconds_count{code="429"}')
    assert (done.returncode, done.stderr) == (0, "")
    calm, busy = figures(out)["stages"]
    first_try = 1
    assert calm["answers"] + busy["answers"] + first_try == answered
    assert calm["refusals"] + busy["refusals"] == refused > 0
    assert 10 < busy["answers_per_second"] <= 20.5
    assert busy["timeouts"] == busy["errors"] == {}
    assert re.findall(r"^ +(\d+) ", done.stdout, re.MULTILINE) == ["2", "8"]  # the table; remarks are not indented
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_what_every_request_would_fail_with_is_told_before_the_load(server: ServerProcess) -> None:
    before = server.metric('request_seconds_count{code="422"}')
    done = run(server, "--body", '{"inputs": []}')
    assert done.returncode == 1
    assert "422 bad_input; mend the URL, --body or --header" in done.stderr
    assert server.metric('request_seconds_count{code="422"}') == before + 1


def test_nobody_there_is_told_in_one_line(server: ServerProcess) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "model_server", "loadtest", "http://127.0.0.1:9/v2/models/digits"]
    done = subprocess.run(line, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("model-server loadtest: can't ask http://127.0.0.1:9/v2/models/digits")


@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_ends_it_with_what_was_measured(server: ServerProcess, signals: int, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    line = command(server, "--clients", "2,3", "--duration", "1", "--settle", "0", "--json", str(out))
    process = subprocess.Popen(
        line, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("      2 "):
        assert process.poll() is None
    time.sleep(0.3)
    interrupted = time.monotonic()
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
    told, failed = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in failed
    if signals == 1:
        assert time.monotonic() - interrupted < 0.7 + 1
        assert "ended by Ctrl-C" in told
        whole, part = figures(out)["stages"]
        assert whole["seconds"] == 1 > part["seconds"]
        assert part["answers"] > 0
