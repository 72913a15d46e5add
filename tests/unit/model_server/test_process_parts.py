"""The small parts of the process: CPUs, metrics, logs, the command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from model_server import __main__ as command
from model_server import app, cpus, metrics_endpoint, settings
from model_server.errors import LoadFailure, Reason
from model_server.telemetry import Telemetry


@pytest.mark.parametrize(
    ("content", "expected"),
    [("max 100000", None), ("50000 100000", 0.5), ("150000 100000\n", 1.5), ("nonsense", None), (None, None)],
)
def test_cpus_are_the_containers_limit_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, expected: float | None
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(4)))
    file = tmp_path / "cpu.max"
    if content is not None:
        file.write_text(content)
    assert cpus.available(file) == (4 if expected is None else expected)


@pytest.mark.parametrize(
    ("concurrency", "available", "threads"), [(1, 4, 4), (2, 4, 2), (3, 4, 1), (8, 4, 1), (1, 0.5, 1), (2, 3.5, 1)]
)
def test_threads_times_concurrency_fit_the_limit(concurrency: int, available: float, threads: int) -> None:
    assert cpus.threads_per_prediction(concurrency, available) == threads


async def scrape(head: bytes) -> bytes:
    telemetry = Telemetry()
    telemetry.watch(lambda: 3, lambda: 2)
    telemetry.request(200, 0.01)
    sock = app.listen("127.0.0.1", 0)
    server = await metrics_endpoint.serve(telemetry, sock)
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(head)
    answer = await reader.read()
    writer.close()
    server.close()
    return answer


async def test_metrics_are_scraped_by_their_names() -> None:
    answer = (await scrape(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).decode()
    assert answer.startswith("HTTP/1.1 200 OK")
    for name in (
        "inflight_server_requests_in_flight 3.0",
        "inflight_server_queue_depth 2.0",
        "inflight_server_queue_wait_seconds_count 0.0",
        "inflight_server_service_seconds_count 0.0",
        "inflight_server_cancelled_total 0.0",
        'inflight_server_request_seconds_count{code="200"} 1.0',
    ):
        assert name in answer
    assert "_created" not in answer


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\n\r\n", b"POST /metrics HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n"])
async def test_there_is_nothing_else_on_the_metrics_port(head: bytes) -> None:
    assert (await scrape(head)).startswith(b"HTTP/1.1 404")


async def test_a_head_without_end_is_hung_up_on() -> None:
    assert await scrape(b"GET /metrics HTTP/1.1\r\nx: " + b"y" * 40_000) == b""


def test_a_taken_port_is_told_as_such() -> None:
    with app.listen("127.0.0.1", 0) as taken, pytest.raises(LoadFailure) as refused:
        app.listen("127.0.0.1", taken.getsockname()[1])
    assert refused.value.reason is Reason.INVALID_SETTINGS
    assert "Address already in use" in refused.value.message


def read(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> settings.Settings:
    """The settings that a command line leads to."""
    seen: list[settings.Settings] = []
    monkeypatch.setattr(command, "_serve", lambda found, _environ, _born: seen.append(found))
    command.main(["serve", *arguments])
    return seen[0]


def test_options_are_another_spelling_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLIGHT_CONCURRENCY", "7")
    monkeypatch.setenv("INFLIGHT_MAX_QUEUE", "3")
    found = read(monkeypatch, "--model", "digits=./digits.onnx", "--port", "9999", "--concurrency", "2")
    assert (found.model.name, found.model.uri, found.model.local_files) == ("digits", "./digits.onnx", True)
    assert (found.port, found.concurrency, found.max_queue) == (9999, 2, 3)


def test_a_model_from_the_command_line_is_served_to_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, "--model", "m=x").host == "127.0.0.1"
    assert read(monkeypatch, "--model", "m=x", "--host", "0.0.0.0").host == "0.0.0.0"  # noqa: S104 - what is tested


def test_a_model_from_the_environment_is_served_to_everybody_and_never_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLIGHT_MODEL_NAME", "digits")
    monkeypatch.setenv("INFLIGHT_MODEL_URI", "/etc/passwd")
    found = read(monkeypatch)
    assert (found.host, found.model.local_files) == ("", False)


@pytest.mark.parametrize("arguments", [["serve", "--model", "digits"], ["serve", "--model", "=x"], [], ["fly"]])
def test_a_wrong_command_line_is_told_how_to_be_right(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert "usage: model-server" in capsys.readouterr().err


def test_a_failed_start_leaves_its_reason_where_kubernetes_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    log = tmp_path / "termination-log"
    monkeypatch.setenv("INFLIGHT_TERMINATION_LOG", str(log))
    with pytest.raises(SystemExit) as ended:
        command.main(["serve", "--model", "digits=x", "--concurrency", "0" * 5000])
    assert ended.value.code == 1
    told = json.loads(log.read_text())
    assert told["reason"] == "InvalidSettings"
    assert "INFLIGHT_CONCURRENCY" in told["message"]
    assert log.stat().st_size < 4096
    assert capfdbinary.readouterr().err == log.read_bytes()
