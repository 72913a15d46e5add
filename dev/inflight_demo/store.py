"""The demo's S3 store in the cluster, and publishing models to it through the S3 API."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError

from inflight_probe.kube import Kube, Object

BUCKET = "models"
CREDENTIALS = "s3-credentials"
PORT = 7070
_READY_SECONDS = 60
_REACHABLE_SECONDS = 30


@dataclass(frozen=True)
class Keys:
    """The keys to the store."""

    access_key: str
    secret_key: str


@dataclass(frozen=True)
class Upload:
    """One object to publish."""

    key: str
    file: Path


async def ensure(kube: Kube, namespace: str) -> Keys:
    """Make the store if it isn't there. Its keys are drawn once and kept in the Secret `s3-credentials`."""
    secret = await kube.get("Secret", namespace, CREDENTIALS) or await kube.apply(_credentials(namespace))
    for manifest in yaml.safe_load_all((Path(__file__).parent / "store.yaml").read_text()):
        manifest["metadata"]["namespace"] = namespace
        await kube.apply(manifest)
    await kube.wait("Deployment", namespace, "s3", _is_ready, seconds=_READY_SECONDS)
    keys = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    return Keys(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"])


async def share(kube: Kube, owner: str, namespace: str) -> None:
    """Give another namespace the keys of the store in `owner`; ValueError when there is no store."""
    secret = await kube.get("Secret", owner, CREDENTIALS)
    if secret is None:
        raise ValueError(f"there is no Secret {owner}/{CREDENTIALS}: make the store first")
    copy = {"name": CREDENTIALS, "namespace": namespace}
    await kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": copy, "data": secret["data"]})


def publish(url: str, keys: Keys, uploads: Sequence[Upload], done: Callable[[int, Upload], None] | None = None) -> None:
    """Put every object into the bucket of the store at `url`; `done` hears of each one."""
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=30),
    )
    try:
        _ensure_bucket(client)
        for number, upload in enumerate(uploads, 1):
            client.put_object(Bucket=BUCKET, Key=upload.key, Body=upload.file.read_bytes())
            if done is not None:
                done(number, upload)
    finally:
        client.close()


def _ensure_bucket(client: Any) -> None:
    """Make the bucket. A pod is ready a moment before its Service leads to it: a refused connection is tried again."""
    deadline = time.monotonic() + _REACHABLE_SECONDS
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            return
        except client.exceptions.BucketAlreadyOwnedByYou:
            return
        except EndpointConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _credentials(namespace: str) -> Object:
    keys = {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(24)}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": CREDENTIALS, "namespace": namespace},
        "type": "Opaque",
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in keys.items()},
    }


def _is_ready(deployment: Mapping[str, Any] | None) -> bool:
    status = (deployment or {}).get("status", {})
    current = status.get("observedGeneration") == (deployment or {}).get("metadata", {}).get("generation")
    return bool(current and status.get("readyReplicas") == 1 and status.get("updatedReplicas") == 1)
