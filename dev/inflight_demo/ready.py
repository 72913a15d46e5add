"""Apply an example and watch its conditions until it is Ready, saying what changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from inflight_probe.kube import Kube, Object, brief, is_true

EXAMPLES = Path(__file__).resolve().parents[2] / "manifests" / "examples"


async def apply_example(kube: Kube, name: str, namespace: str) -> Object:
    """Apply manifests/examples/<name>.yaml into `namespace`; the stored ModelDeployment."""
    stored: Object = {}
    for manifest in yaml.safe_load_all((EXAMPLES / f"{name}.yaml").read_text()):
        if manifest:
            manifest["metadata"]["namespace"] = namespace
            applied = await kube.apply(manifest)
            stored = applied if manifest["kind"] == "ModelDeployment" else stored
    if not stored:
        raise ValueError(f"manifests/examples/{name}.yaml holds no ModelDeployment")
    return stored


async def wait_ready(kube: Kube, namespace: str, name: str, *, seconds: float, say: Callable[[str], None]) -> Object:
    """Wait for Ready of the stored generation, telling what is new. TimeoutError with the last conditions."""
    began, told = time.monotonic(), dict[str, str]()
    while True:
        found = await kube.get("ModelDeployment", namespace, name)
        for line in _news(found, told):
            say(f"{time.monotonic() - began:5.1f} s  {line}")
        if found is not None and is_true(found, "Ready"):
            return found
        if time.monotonic() - began > seconds:
            raise TimeoutError(
                f"ModelDeployment {namespace}/{name} is not Ready after {seconds:.0f} s. "
                f"It says: {brief(found)}. "
                f"Look at it with: dev/cluster kubectl describe md {name} -n {namespace}"
            )
        await asyncio.sleep(0.2)


def _news(found: Mapping[str, Any] | None, told: dict[str, str]) -> list[str]:
    """What the conditions Ready and Available say that they did not say before."""
    lines = []
    for condition in (found or {}).get("status", {}).get("conditions", []):
        kind, status = condition["type"], condition["status"]
        text = f"{kind}={status}  {condition.get('reason', '')}: {condition.get('message', '')}"
        if kind in ("Ready", "Available") and told.get(kind) != text:
            told[kind] = text
            lines.append(text)
    return lines


def weights(deployment: Mapping[str, Any]) -> dict[str, int]:
    """The weights asked for, by variant (100 where there is one variant and it says none)."""
    variants = deployment["spec"]["variants"]
    return {v["name"]: v.get("weight", 100 if len(variants) == 1 else 0) for v in variants}
