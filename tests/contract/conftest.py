"""A real API server with the ModelDeployment's definition, shared by these tests. Nothing runs a pod here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from inflight_cluster import apiserver
from inflight_cluster.apiserver import Running
from modeldeployments import Api, install_definition


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """An API server of these tests' own."""
    memory = Path("/dev/shm")  # noqa: S108 - for etcd's speed
    directory = Path(tempfile.mkdtemp(prefix="inflight-contract-", dir=memory if memory.is_dir() else None))
    try:
        with apiserver.running(directory) as found:
            yield found
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def api(running: Running) -> Iterator[Api]:
    """A client of it; ModelDeployments are known."""
    headers = {"Authorization": f"Bearer {running.token}"}
    with httpx.Client(base_url=running.url, verify=running.client_context(), headers=headers, timeout=30) as http:
        install_definition(running.kubeconfig)
        yield Api(http)
