"""wrk as a load generator: one run, its report as numbers. `apt-get install wrk`."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SCRIPT: Final = """
local file = io.open(os.getenv("BENCH_REQUEST"), "rb")
local message = file:read("*all")
file:close()
request = function() return message end
done = function(summary, latency, requests)
  io.write(string.format('\\nREPORT {"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "status": %d, ' ..
    '"connect": %d, "read": %d, "write": %d, "timeout": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), summary.errors.status,
    summary.errors.connect, summary.errors.read, summary.errors.write, summary.errors.timeout))
end
"""


@dataclass(frozen=True)
class Report:
    """What one run of wrk said. Latencies in ms."""

    rps: float
    p50_ms: float
    p99_ms: float
    failed: int
    """Statuses of 400 and more, broken connections, answers that took over 10 s."""
    generator_share: float
    """Processors that wrk itself used."""


async def run(port: int, message: bytes, connections: int, seconds: int) -> Report:
    """`connections` in a closed loop. RuntimeError with what wrk said when it can't run."""
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError("wrk is missing: apt-get install wrk")
    with tempfile.TemporaryDirectory() as directory:
        script, request = _files(Path(directory), message)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = await asyncio.create_subprocess_exec(
            *(program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(script)),
            f"http://127.0.0.1:{port}/",
            env={"BENCH_REQUEST": str(request)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), seconds + 30)
        finally:
            if process.returncode is None:
                process.kill()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return parse(output.decode(), used)


def _files(directory: Path, message: bytes) -> tuple[Path, Path]:
    script, request = directory / "report.lua", directory / "request"
    script.write_text(_SCRIPT)
    request.write_bytes(message)
    return script, request


def parse(output: str, cpu_seconds: float) -> Report:
    """The line that the script above prints."""
    _, found, line = output.partition("\nREPORT ")
    if not found:
        raise RuntimeError(f"wrk made no report: {output.strip()[-500:]}")
    said = json.loads(line.splitlines()[0])
    seconds = said["microseconds"] / 1e6
    failed = sum(said[name] for name in ("status", "connect", "read", "write", "timeout"))
    right = max(0, said["requests"] - said["status"])
    return Report(right / seconds, said["p50"] / 1000, said["p99"] / 1000, failed, cpu_seconds / seconds)
