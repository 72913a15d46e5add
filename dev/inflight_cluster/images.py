"""The product's images: built when something in them has changed, kept as archives, loaded into the cluster."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inflight_cluster import builders, oci, tools, wheels
from inflight_cluster.console import Console
from inflight_cluster.errors import ClusterError
from inflight_cluster.settings import REPOSITORY

VERSION = "0.1.0"
PRODUCT = ("operator", "router", "model-server")
BINARIES = ("versitygw",)  # Go tools that the demo runs inside the cluster
NONROOT = "65532:65532"


@dataclass(frozen=True)
class Image:
    """A built image: its reference inside the cluster and the archive that holds it."""

    reference: str
    archive: Path


def reference(name: str) -> str:
    """What a pod calls it; without a registry Kubernetes means docker.io."""
    return f"docker.io/inflight/{name}:{VERSION}"


def build(names: Sequence[str], cache: Path, console: Console) -> list[Image]:
    """Archives of the named images (default: all), each built only when its inputs have changed."""
    for name in names:
        if name not in PRODUCT + BINARIES:
            raise ClusterError(f"no image {name!r}; there are: {', '.join(PRODUCT + BINARIES)}")
    builder = builders.choose(cache)
    built = []
    for name in names or PRODUCT + BINARIES:
        make = binary_image(name, cache, console) if name in BINARIES else _build_one(name, cache, builder, console)
        built.append(make)
    return built


def push(registry: str, names: Sequence[str], cache: Path, console: Console) -> None:
    """Push the product's images to `registry`, as the chart's image.registry expects them."""
    builder = builders.choose(cache)
    for image in build(names or PRODUCT, cache, console):
        target = image.reference.replace("docker.io", registry.rstrip("/"), 1)
        with console.step(f"push {target}"):
            builder.push(image.archive, image.reference, target)


def binary_image(name: str, cache: Path, console: Console) -> Image:
    """One static binary of dev/tools on nothing else."""
    content = tools.ensure([name], cache, console)[name].read_bytes()
    archive = _archive(name, hashlib.sha256(content).hexdigest(), cache)
    if not archive.exists():
        _forget(name, cache)
        oci.write(archive, reference(name), {name: content}, [f"/{name}"], NONROOT)
    return Image(reference(name), archive)


def _build_one(name: str, cache: Path, builder: builders.Docker | builders.Buildah, console: Console) -> Image:
    project = REPOSITORY / name
    requirements = REPOSITORY / "requirements" / f"{name}.txt"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        context = Path(scratch)
        (context / "own").mkdir()
        if (project / "pyproject.toml").exists():
            wheels.own(project, context / "own")
        shutil.copy2(project / "Dockerfile", context)
        shutil.copy2(requirements, context / "requirements.txt")
        archive = _archive(name, f"{builder.key} {_content(context)}", cache)
        if not archive.exists():
            with console.step(f"wheels for {name}"):
                shutil.copytree(wheels.dependencies(requirements, cache), context / "wheels", copy_function=os.link)
            with console.step(f"image {name}"):
                _forget(name, cache)
                builder.build(context, reference(name), archive, console)
    return Image(reference(name), archive)


def _content(directory: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(directory)).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _archive(name: str, inputs: str, cache: Path) -> Path:
    directory = cache / "images"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{name}-{hashlib.sha256(inputs.encode()).hexdigest()[:12]}.tar"


def _forget(name: str, cache: Path) -> None:
    for old in (cache / "images").glob(f"{name}-????????????.tar"):
        old.unlink()
