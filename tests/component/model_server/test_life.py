"""Starting, failing to start, draining and ending."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_artifacts import add_one, pickled, write
from model_process import started
from model_serving import until

INFER = "/v2/models/digits/infer"
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
SLOW_START = "import time\ntime.sleep(30)\nclass A:\n  def predict(self, inputs): ...\n"
NEVER = "class A:\n  def predict(self, inputs):\n    while True: pass\n"


@pytest.mark.parametrize("held", [{"DRAIN_DELAY_SECONDS": "1"}], indirect=True)
async def test_sigterm_turns_readiness_off_keeps_serving_finishes_what_runs_and_ends_with_0(held: Any) -> None:
    running = held.running
    async with httpx.AsyncClient(base_url=running.url, timeout=30) as http:
        in_flight = asyncio.create_task(http.post(INFER, json=BODY))
        await until(lambda: held.calls == 1)
        running.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert (await http.get("/v2/health/ready")).status_code == 503
        assert (await http.get("/v2/health/live")).status_code == 200
        late = asyncio.create_task(http.post(INFER, json=BODY))
        await until(lambda: running.metric("queue_depth") == 1)
        await asyncio.sleep(1.5)  # the drain delay is over, two requests are still here
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", running.port)
        assert running.process.poll() is None
        held.let_go()
        for answer in (await in_flight, await late):
            assert answer.status_code == 200
        assert (await late).headers["connection"] == "close"
    assert running.ended() == 0


TALKATIVE = """
import logging

log = logging.getLogger("shop.model")
log.setLevel(logging.INFO)

class A:
    def predict(self, inputs):
        log.info("looking at %s", inputs["x"].tolist())
        return inputs["x"]
"""


def test_what_a_model_logs_in_its_process_has_the_id_of_its_request(tmp_path: Path) -> None:
    path = write(tmp_path, "model.py", TALKATIVE.encode())
    with started("--model", f"digits={path}", "--format", "python", VARIANT="b") as running:
        for name in ("r-1", "r-2"):
            answer = httpx.post(running.url + INFER, json=BODY, headers={"x-request-id": name}, timeout=30)
            assert answer.status_code == 200
        running.wait_for("looking at [[1.0, 2.0]]")
        running.stop()
    found = [line for line in running.log if line.get("event") == "looking at [[1.0, 2.0]]" and "request_id" in line]
    assert [(line["request_id"], line["level"], line["variant"]) for line in found] == [
        ("r-1", "info", "b"), ("r-2", "info", "b"),
    ]  # fmt: skip


def test_idle_connections_do_not_hold_up_the_end(onnx_file: Path) -> None:
    with started("--model", f"digits={onnx_file}") as running, httpx.Client() as http:
        http.get(running.url + "/v2")
        started_at = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started_at < 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_the_model_is_loading_is_obeyed_at_once(tmp_path: Path, number: int) -> None:
    path = write(tmp_path, "slow.py", SLOW_START.encode())
    with started("--model", f"digits={path}", "--format", "python", ready=False) as running:
        running.wait_for("model fetched")
        assert httpx.get(running.url + "/v2/health/live").status_code == 200
        assert httpx.get(running.url + "/v2/health/ready").status_code == 503
        assert httpx.post(running.url + INFER, json=BODY).json()["code"] == "not_ready"
        started_at = time.monotonic()
        assert running.stop(number) == 0
        assert time.monotonic() - started_at < 5


def test_a_prediction_that_never_ends_does_not_keep_the_process(tmp_path: Path) -> None:
    path = write(tmp_path, "never.py", NEVER.encode())
    options = {"TIMEOUT_MILLISECONDS": "300"}
    with started("--model", f"digits={path}", "--format", "python", **options) as running:
        assert httpx.post(running.url + INFER, json=BODY, timeout=20).status_code == 504
        started_at = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started_at < 10


def test_a_second_signal_ends_it_now(held: Any) -> None:
    running = held.running
    with pytest.raises(httpx.TimeoutException):
        httpx.post(running.url + INFER, json=BODY, timeout=0.3)
    running.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    running.process.send_signal(signal.SIGTERM)
    assert running.ended() == 0


@pytest.mark.parametrize(
    ("content", "settings", "reason", "says"),
    [
        pytest.param(add_one(), {"MODEL_SHA256": "0" * 64}, "DigestMismatch", "specification says 0000", id="digest"),
        pytest.param(pickled(), {}, "UnsafeFormat", "is a pickle", id="pickle"),
        pytest.param(add_one(external=True), {}, "UnsafeFormat", "other files", id="external data"),
        pytest.param(b"<html>", {}, "UnsupportedFormat", "web page", id="web page"),
        pytest.param(b"import nowhere\nclass A: ...", {"MODEL_FORMAT": "python"}, "LoadFailed", "nowhere", id="import"),
        pytest.param(add_one(), {"CONCURRENCY": "0"}, "InvalidSettings", "INFLIGHT_CONCURRENCY", id="settings"),
        pytest.param(add_one(), {"MODEL_URI": "ftp://b/m"}, "InvalidSettings", "must begin with", id="scheme"),
        pytest.param(add_one(), {"MODEL_URI": "/etc/passwd"}, "InvalidSettings", "must begin with", id="file"),
        pytest.param(
            add_one(), {"MODEL_URI": "https://169.254.169.254/m"}, "FetchFailed", "not fetched from", id="metadata"
        ),
        pytest.param(None, {}, "FetchFailed", "no files", id="nothing there"),
    ],
)
def test_what_cannot_be_served_is_told_in_the_termination_log(
    tmp_path: Path, content: bytes | None, settings: dict[str, str], reason: str, says: str
) -> None:
    (tmp_path / "models").mkdir()
    if content is not None:
        write(tmp_path, "models/model.onnx", content)
    log = tmp_path / "termination-log"
    environ = {
        "MODEL_NAME": "digits",
        "MODEL_URI": "image://registry.example/digits:1",
        "MODEL_DIR": str(tmp_path / "models"),
        "TERMINATION_LOG": str(log),
        **settings,
    }
    with started(ready=False, **environ) as running:
        assert running.ended() == 1
    told = json.loads(log.read_text())
    assert told["reason"] == reason
    assert says in told["message"]
    assert "Traceback" not in "".join(running.raw)


def test_what_the_operator_sets_is_all_it_needs(tmp_path: Path) -> None:
    write(tmp_path, "models/model.onnx", add_one())
    environ = {
        "MODEL_NAME": "digits",
        "MODEL_URI": "image://registry.example/digits:1",
        "MODEL_SHA256": hashlib.sha256(add_one()).hexdigest(),
        "MODEL_DIR": str(tmp_path / "models"),
        "REVISION": "digits-stable-12345678",
        "VARIANT": "stable",
        "DRAIN_DELAY_SECONDS": "0",
    }
    with started(**environ) as running:
        metadata = httpx.get(running.url + "/v2/models/digits").json()
        assert metadata["versions"] == ["digits-stable-12345678"]
        assert metadata["parameters"]["sha256"] == environ["MODEL_SHA256"]
        assert running.wait_for("ready")["variant"] == "stable"
        versioned = "/v2/models/digits/versions/digits-stable-12345678/infer"
        assert httpx.post(running.url + versioned, json=BODY).status_code == 200
        assert running.stop() == 0
