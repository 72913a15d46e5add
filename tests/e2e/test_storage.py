"""Models on a claim: a real kubelet mounts it, read-only and whole, into pods that the restricted standard admits."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inflight_probe.kube import is_true
from stage import deployment

ECHO = Path(__file__).parent / "models" / "echo.py"
PYTHON = {"format": "python", "entrypoint": "model:Model"}
SPEC = {"storageClassName": "", "accessModes": ["ReadOnlyMany"]}


@pytest.fixture
async def claim(stage) -> AsyncIterator[str]:
    """A bound claim with models in it, on a directory of this machine, which is the node."""
    if os.environ.get("CLUSTER") == "kind":
        pytest.skip("kind's node has a file system of its own, which this test can't write to")
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    filled(directory)
    name = f"{stage.namespace}-models"
    to = {"claimRef": {"namespace": stage.namespace, "name": "models"}, "capacity": {"storage": "1Gi"}}
    volume = {**SPEC, **to, "hostPath": {"path": str(directory), "type": "Directory"}}
    await stage.kube.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume})
    wanted = {**SPEC, "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}}
    await stage.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}, "spec": wanted}
    )
    yield "models"
    await stage.kube.delete("PersistentVolume", "", name)
    shutil.rmtree(directory)


def filled(directory: Path) -> None:
    directory.chmod(0o755)
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
