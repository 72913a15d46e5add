"""Measure fetching a large model: `python -m benchmarks.bench_fetch [--megabytes 500] [--rounds 5] [--json FILE]`.

The store is a process of its own on loopback: each request waits 20 ms before its answer begins, each connection 20 ms
more before its first one, and none brings more than 100 MB/s. Rounds are interleaved: every way once, then again.
"one stream" is the same store when it offers no ranges, which is what a plain download does. Each fetch is a process of
its own, so that its memory and CPU time are its own; it fails unless the digest is right.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
LATENCY_SECONDS: Final = 0.020
BYTES_PER_SECOND: Final = 100e6
_TICK_BYTES: Final = 1024 * 1024
_WAYS: Final = {"one stream": (False, 8), "1 connection": (True, 1), "2": (True, 2), "4": (True, 4), "8": (True, 8)}
"""What is measured → (does the store offer ranges, INFLIGHT_FETCH_CONNECTIONS)."""

_FETCH: Final = """
import json, resource, sys, time
from pathlib import Path
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage.fetching import fetch
url, sha256, connections, directory = sys.argv[1:]
before, began = time.process_time(), time.perf_counter()
fetch(ModelSettings("m", url, sha256, local_files=True), StorageSettings(connections=int(connections)), Path(directory))
took, used = time.perf_counter() - began, time.process_time() - before
print(json.dumps([took, used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def serve(file: Path, port_file: Path) -> None:
    """The store: /ranges/... offers ranges, /stream/... doesn't. It sends from the page cache, paced."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    port_file.write_text(str(listener.getsockname()[1]))
    size = file.stat().st_size
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answered, args=(connection, file, size), daemon=True).start()


def _answered(connection: socket.socket, path: Path, size: int) -> None:
    with connection, path.open("rb") as file:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        time.sleep(LATENCY_SECONDS)
        head = b""
        while True:
            while b"\r\n\r\n" not in head:
                received = connection.recv(65536)
                if not received:
                    return
                head += received
            time.sleep(LATENCY_SECONDS)
            asked = re.search(rb"(?i)\r\nrange: bytes=(\d+)-(\d+)", head)
            start, stop, status = 0, size, "200 OK"
            if asked and head.startswith(b"GET /ranges/"):
                start, stop = int(asked[1]), min(int(asked[2]) + 1, size)
                status = f"206 Partial Content\r\ncontent-range: bytes {start}-{stop - 1}/{size}"
            connection.sendall(f'HTTP/1.1 {status}\r\netag: "1"\r\ncontent-length: {stop - start}\r\n\r\n'.encode())
            try:
                _paced(connection, file.fileno(), start, stop)
            except OSError:
                return
            head = b""


def _paced(connection: socket.socket, file: int, start: int, stop: int) -> None:
    began, sent = time.perf_counter(), 0
    while start + sent < stop:
        sent += os.sendfile(connection.fileno(), file, start + sent, min(_TICK_BYTES, stop - start - sent))
        ahead = sent / BYTES_PER_SECOND - (time.perf_counter() - began)
        if ahead > 0:
            time.sleep(ahead)


@contextmanager
def store(directory: Path, megabytes: int) -> Iterator[tuple[str, str]]:
    """(URL, sha256) of a running store with a file of random bytes."""
    file, port_file, hashed = directory / "model", directory / "port", hashlib.sha256()
    with file.open("wb") as out:
        for _ in range(megabytes):
            block = os.urandom(1_000_000)
            hashed.update(block)
            out.write(block)
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.bench_fetch", "--serve", file, port_file], cwd=ROOT)
    try:
        while not (port_file.exists() and port_file.read_text()):
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port_file.read_text()}", hashed.hexdigest()
    finally:
        process.terminate()
        process.wait()


def fetched(url: str, sha256: str, ranges: bool, connections: int, directory: Path) -> list[float]:
    """[seconds, CPU seconds, peak MiB] of one fetch in a new process."""
    with tempfile.TemporaryDirectory(dir=directory) as target:
        address = f"{url}/{'ranges' if ranges else 'stream'}/model"
        command = [sys.executable, "-c", _FETCH, address, sha256, str(connections), target]
        environ = {**os.environ, "PYTHONPATH": str(ROOT / "model-server")}
        ended = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=True)
        numbers: list[float] = json.loads(ended.stdout.splitlines()[-1])
        return numbers


def measured(megabytes: int, rounds: int) -> dict[str, Any]:
    """Every way `rounds` times, interleaved."""
    runs: dict[str, list[list[float]]] = {way: [] for way in _WAYS}
    with tempfile.TemporaryDirectory() as temporary, store(Path(temporary), megabytes) as (url, sha256):
        for _ in range(rounds):
            for way, (ranges, connections) in _WAYS.items():
                runs[way].append(fetched(url, sha256, ranges, connections, Path(temporary)))
                print(way, *(round(number, 2) for number in runs[way][-1]), file=sys.stderr, flush=True)
    return {
        "megabytes": megabytes,
        "latency_ms": LATENCY_SECONDS * 1000,
        "megabytes_per_second_and_connection": BYTES_PER_SECOND / 1e6,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "load_average_before": LOAD,
        "seconds_cpu_mib": runs,
    }


def table(result: dict[str, Any]) -> str:
    """Medians and ranges, in words."""
    lines = ["| over | seconds (of all rounds) | MB/s | CPU seconds | peak MiB |", "|---|---|---|---|---|"]
    for way, runs in result["seconds_cpu_mib"].items():
        seconds, cpu, peak = (sorted(numbers) for numbers in zip(*runs, strict=True))
        middle = statistics.median(seconds)
        lines.append(
            f"| {way} | {middle:.2f} ({seconds[0]:.2f} to {seconds[-1]:.2f}) | {result['megabytes'] / middle:.0f} "
            f"| {statistics.median(cpu):.2f} | {statistics.median(peak):.0f} |"
        )
    return "\n".join(lines)


LOAD: Final = round(os.getloadavg()[0], 2)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    result = measured(options.megabytes, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
