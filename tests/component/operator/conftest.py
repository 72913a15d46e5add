"""A real API server (no nodes), shared by this folder's tests; each test has ModelDeployments of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from inflight_cluster.apiserver import Running, running
from modeldeployments import install_definition
from reconciling import Bench, FragileKube


@pytest.fixture(scope="session")
def api() -> Iterator[Running]:
    shared = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108 - memory, for etcd's speed
    directory = Path(tempfile.mkdtemp(prefix="inflight-api-", dir=shared))
    try:
        with running(directory) as found:
            yield found
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def bench(api: Running, crd: None) -> AsyncIterator[Bench]:
    kube = await FragileKube.connect(api.kubeconfig)
    found = Bench(kube)
    yield found
    await found.leave()


@pytest.fixture(scope="session")
def crd(api: Running) -> None:
    install_definition(api.kubeconfig)
