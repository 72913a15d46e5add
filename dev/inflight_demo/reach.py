"""How to reach a Service: by its address where we are inside the cluster's network, else by kubectl port-forward."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from inflight_cluster.settings import load
from inflight_demo.cluster import CLUSTER
from inflight_probe.kube import Kube

_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
_SECONDS = 20


@asynccontextmanager
async def service(kube: Kube, namespace: str, name: str, port: int) -> AsyncIterator[str]:
    """An http URL of the Service for as long as the block runs. LookupError when there is no such Service."""
    found = await kube.get("Service", namespace, name)
    if found is None:
        raise LookupError(f"there is no Service {namespace}/{name}: install it first (make demo)")
    if load().backend == "local":
        yield f"http://{found['spec']['clusterIP']}:{port}"
        return
    async with _forwarded(namespace, name, port) as local:
        yield f"http://127.0.0.1:{local}"


@asynccontextmanager
async def _forwarded(namespace: str, name: str, port: int) -> AsyncIterator[int]:
    command = [CLUSTER, "kubectl", "port-forward", "-n", namespace, f"service/{name}", f":{port}"]
    forward = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(_SECONDS):
            local = await _port(forward, command)
        yield local
    finally:
        if forward.returncode is None:
            forward.terminate()
        await forward.wait()


async def _port(forward: asyncio.subprocess.Process, command: list[str]) -> int:
    """The local port, as kubectl tells it; ConnectionError when it ends instead."""
    assert forward.stdout is not None  # noqa: S101 - we asked for it
    while line := (await forward.stdout.readline()).decode():
        if told := _FORWARDING.search(line):
            return int(told[1])
    raise ConnectionError(f"`{' '.join(command)}` ended with {await forward.wait()}")
