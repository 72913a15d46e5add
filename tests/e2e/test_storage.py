"""Models on a claim, and a cache on one: a real kubelet mounts them into pods that the restricted standard admits."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from inflight_demo import store
from inflight_probe.kube import is_true
from stage import deployment, model

ECHO = Path(__file__).parent / "models" / "echo.py"
PYTHON = {"format": "python", "entrypoint": "model:Model"}
SHA256 = hashlib.sha256(ECHO.read_bytes()).hexdigest()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory of this machine, which is the node."""
    if os.environ.get("CLUSTER") == "kind":
        pytest.skip("kind's node has a file system of its own, which this test can't write to")
    made = Path(tempfile.mkdtemp(dir="/var/tmp"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@asynccontextmanager
async def bound(stage, directory: Path, mode: str) -> AsyncIterator[str]:
    """A claim in the stage's namespace that is that directory."""
    name, spec = f"{stage.namespace}-models", {"storageClassName": "", "accessModes": [mode]}
    to = {"claimRef": {"namespace": stage.namespace, "name": "models"}, "capacity": {"storage": "1Gi"}}
    volume = {**spec, **to, "hostPath": {"path": str(directory), "type": "Directory"}}
    await stage.kube.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume})
    wanted = {**spec, "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}}
    await stage.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}, "spec": wanted}
    )
    yield "models"
    await stage.kube.delete("PersistentVolume", "", name)


@pytest.fixture
async def claim(stage, directory) -> AsyncIterator[str]:
    """A claim with models on it."""
    filled(directory)
    async with bound(stage, directory, "ReadOnlyMany") as name:
        yield name


def filled(directory: Path) -> None:
    for version in ("echo/1", "echo/2"):
        (directory / version).mkdir(parents=True)
        shutil.copy(ECHO, directory / version / "model.py")
    (directory / "echo/latest").symlink_to("2")
    with tarfile.open(directory / "echo.tar.gz", "w:gz") as good:
        good.add(ECHO, "model.py")
    with tarfile.open(directory / "evil.tar.gz", "w:gz") as evil:
        evil.add(ECHO, "../model.py")


@pytest.mark.parametrize("path", ["echo/1/model.py", "echo/2/", "echo.tar.gz"], ids=["file", "directory", "archive"])
async def test_a_model_on_a_claim_is_served(stage, claim, path):
    served = await stage.serve("claimed", {"name": "main", "model": {"uri": f"pvc://{claim}/{path}", **PYTHON}})
    assert is_true(served, "Ready")
    (pod,) = await stage.owned("Pod", "claimed")
    mounts = {mount["name"]: mount for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["claim"]["readOnly"] is True
    async with stage.sending("claimed") as send:
        assert (await send(0)).status == 200


@pytest.mark.parametrize(
    ("path", "reason", "said"),
    [
        ("echo/latest", "UnsafeFormat", "is a link"),
        ("evil.tar.gz", "UnsafeArchive", "lead out"),
        ("nothing", "FetchFailed", "No such file"),
    ],
    ids=["a link", "an archive that leads out", "nothing"],
)
async def test_what_is_refused_is_told(stage, claim, path, reason, said):
    bad = {"name": "main", "model": {"uri": f"pvc://{claim}/{path}", **PYTHON}}
    await stage.apply(deployment("claimed", bad))
    told = await stage.says("claimed", "False", {reason}, seconds=60)
    assert said in told["message"]


async def test_a_secret_that_is_not_there_is_missed_by_what_it_needs_until_it_is_there(stage):
    here = model("e2e/echo/1/model.py")
    here["storage"] = {**here["storage"], "secretRef": {"name": "forgotten"}}
    await stage.apply(deployment("locked", {"name": "main", "model": here}))
    told = await stage.says("locked", "False", {"SecretNotFound"}, seconds=60)
    assert "AWS_SECRET_ACCESS_KEY" in told["message"]
    keys = await stage.get("Secret", store.CREDENTIALS)
    await stage.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "forgotten"}, "data": keys["data"]})
    await stage.ready("locked", seconds=180)


async def test_pods_of_a_node_share_what_one_of_them_has_fetched(stage, directory):
    async with bound(stage, directory, "ReadWriteMany") as claim:
        pod = {
            "env": [{"name": "INFLIGHT_CACHE_DIR", "value": "/cache"}],
            "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": claim}}],
            "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
        }
        main = {"name": "main", "model": model("e2e/echo/1/model.py", sha256=SHA256), "server": {"podTemplate": pod}}
        await stage.serve("sharing", main, autoscaling={"minReplicas": 2, "maxReplicas": 2})
        (entry,) = directory.iterdir()
        assert entry.name.startswith(SHA256)
        assert (entry / "fetched" / "model.py").read_bytes() == ECHO.read_bytes()
        async with stage.sending("sharing") as send:
            assert (await send(0)).status == 200
