"""Requests made up from the served OpenAPI document, right ones and wrong ones: no 5xx, every answer as described."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx

from model_process import ServerProcess

EXAMPLES = 15
"""Per operation, besides the cases at the edges of each schema (the coverage phase): bounds what this test costs."""

UNSUITABLE = (
    "positive_data_acceptance",  # a schema can't say that data has as many elements as shape tells
    "negative_data_rejection",  # headers that nobody knows are no reason to refuse
)


def test_whatever_is_asked_the_answer_is_as_described_and_no_server_error(
    server: ServerProcess, tmp_path: Path
) -> None:
    options = {
        "--exclude-checks": ",".join(UNSUITABLE),
        "--max-examples": str(EXAMPLES),
        "--phases": "examples,coverage,fuzzing",  # there is no state here
        # A deadline made up at random would be missed at random.
        "--header": "x-request-timeout-ms: 3000",
    }
    line = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--generation-deterministic"]
    line += [part for option in options.items() for part in option]
    before = server.metric('request_seconds_count{code="200"}')
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    described = len(httpx.get(f"{server.url}/openapi.json").json()["paths"])
    assert f"Selected: {described}/{described}" in done.stdout
    (generated,) = re.findall(r"([\d,]+) generated", done.stdout)
    assert int(generated.replace(",", "")) > 300
    assert server.metric('request_seconds_count{code="200"}') > before + 10  # real predictions were among them
    assert server.metric('request_seconds_count{code="500"}') == 0
