"""The fixtures of every test on the real cluster: the installation, and a stage in a namespace of its own."""

from __future__ import annotations

import asyncio
import pickle
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from inflight_demo import cluster, model_image, models, published, reach, store
from inflight_demo.store import Upload
from inflight_demo.traffic import router
from inflight_probe.kube import Kube, access
from stage import Stage

MODELS = Path(__file__).parents[1] / "e2e" / "models"


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> models.Catalogue:
    """Cluster, images, chart and models: what is there already is kept, what is old is renewed."""
    cluster.run(cluster.CLUSTER, "up")
    cluster.images()
    cluster.namespaces()
    cluster.install_chart()
    cluster.enter()
    catalogue = models.catalogue()
    model_image.ensure(catalogue)
    asyncio.run(_publish(catalogue, tmp_path_factory.mktemp("bad")))
    return catalogue


async def _publish(catalogue: models.Catalogue, scratch: Path) -> None:
    pickled = scratch / "model.pkl"
    pickled.write_bytes(pickle.dumps({"weights": [1.0, 2.0]}))
    own = [Upload(f"e2e/{file.stem}/{version}/model.py", file) for file in MODELS.glob("*.py") for version in (1, 2)]
    async with Kube(access()) as kube:
        keys = await store.ensure(kube, cluster.NAMESPACE)
        uploads = [*published.uploads(catalogue), *own, Upload("e2e/pickle/1/model.pkl", pickled)]
        async with reach.service(kube, cluster.NAMESPACE, "s3", store.PORT) as url:
            store.publish(url, keys, uploads)


@pytest.fixture
async def stage(installed) -> AsyncIterator[Stage]:
    """A namespace of the test's own, which admits restricted pods only."""
    async with Kube(access()) as kube, router(kube) as url, _namespace(kube, f"e2e-{secrets.token_hex(3)}") as name:
        yield Stage(kube, url, name)


@pytest.fixture
async def neighbour(stage) -> AsyncIterator[Stage]:
    """Somebody else's namespace, whose name begins like the stage's."""
    async with _namespace(stage.kube, f"{stage.namespace}-b") as name:
        yield replace(stage, namespace=name)


@asynccontextmanager
async def _namespace(kube: Kube, name: str) -> AsyncIterator[str]:
    await kube.apply(cluster.namespace(name))
    await store.share(kube, cluster.NAMESPACE, name)
    try:
        yield name
    finally:
        await kube.delete("Namespace", "", name)
