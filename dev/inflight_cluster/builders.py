"""Builds an image from a prepared context: with Docker where it runs, else with buildah and a base image of our own.

Both read the same Dockerfiles. The build itself uses no network.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from inflight_cluster.console import Console
from inflight_cluster.errors import ClusterError
from inflight_cluster.tools import system_program

_BASE_DOCKERFILE = Path(__file__).with_name("base.Dockerfile")
_SUITE = "bookworm"
_PACKAGES = "python3,python3-venv,ca-certificates,libstdc++6"  # the last for grpcio and onnxruntime
_WITHOUT = ("doc", "man", "locale", "info")
_USER_HOOK = (
    'echo "nonroot:x:65532:65532:nonroot:/tmp:/usr/sbin/nologin" >> "$1/etc/passwd"; '
    'echo "nonroot:x:65532:" >> "$1/etc/group"'
)


class Docker:
    """The machine's Docker daemon, with the official Python image as the base."""

    key = "docker"

    def build(self, context: Path, reference: str, archive: Path, console: Console) -> None:
        """Build and tag `reference`, and write it to `archive`."""
        del console
        _run("docker", "build", "--tag", reference, str(context))
        partial = archive.with_suffix(".partial")
        _run("docker", "save", "--output", str(partial), reference)
        partial.replace(archive)

    def push(self, archive: Path, reference: str, target: str) -> None:
        _run("docker", "load", "--input", str(archive))
        _run("docker", "tag", reference, target)
        _run("docker", "push", target)


class Buildah:
    """buildah without a daemon: chroot isolation, its storage in the cache.

    Each command mounts in a namespace of its own, so that its mounts go with it, however it ends. One build at a time:
    the caller holds a lock.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        recipe = (_BASE_DOCKERFILE.read_text(), _SUITE, _PACKAGES, *_WITHOUT, _USER_HOOK)
        self.key = hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]

    def build(self, context: Path, reference: str, archive: Path, console: Console) -> None:
        """Build and tag `reference`, and write it to `archive`.

        In Docker's format: every tool reads it, and it is not compressed, which would take longer than it saves.
        """
        self._buildah("rm", "--all")  # working containers of builds that were killed
        base = self._base(console)
        self._buildah("build", "--layers", "--build-arg", f"BASE_IMAGE={base}", "--tag", reference, str(context))
        partial = archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        self._buildah("push", "--quiet", reference, f"docker-archive:{partial}:{reference}")
        partial.replace(archive)

    def push(self, archive: Path, reference: str, target: str) -> None:
        """Push an archive to a registry; credentials are those of `buildah login`."""
        identifier = self._buildah("pull", "--quiet", f"docker-archive:{archive}:{reference}").strip()
        self._buildah("push", "--quiet", identifier, f"docker://{target}")

    def _base(self, console: Console) -> str:
        """The base image's reference; built when its recipe has changed."""
        reference = f"localhost/inflight-base:{self.key}"
        if reference in self._buildah("images", "--format", "{{.Name}}:{{.Tag}}"):
            return reference
        step = console.step("base image (Debian's Python, about a minute the first time)")
        with step, tempfile.TemporaryDirectory(dir=self._cache) as context:
            _debootstrap(Path(context) / "rootfs.tar")
            shutil.copyfile(_BASE_DOCKERFILE, Path(context) / "Dockerfile")
            self._buildah("build", "--tag", reference, context)
        return reference

    def _buildah(self, *arguments: str) -> str:
        storage = self._cache / "buildah"
        options = ["--root", str(storage), "--runroot", str(storage / "run"), "--storage-driver", self._driver()]
        alone = ("unshare", "--mount", "--propagation", "private")
        return _run(*alone, "buildah", *options, *arguments, environment={"BUILDAH_ISOLATION": "chroot"})

    def _driver(self) -> str:
        """overlay, except where the cache is itself on an overlay, as inside a container."""
        self._cache.mkdir(parents=True, exist_ok=True)
        kind = _run("stat", "--file-system", "--format=%T", str(self._cache)).strip()
        return "vfs" if kind == "overlayfs" else "overlay"


def choose(cache: Path) -> Docker | Buildah:
    """Docker where a daemon answers, else buildah."""
    if (
        system_program("docker")
        and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    ):
        return Docker()
    if system_program("buildah"):
        return Buildah(cache)
    raise ClusterError("neither a Docker daemon nor buildah: install it with 'apt-get install buildah mmdebstrap'")


def _debootstrap(output: Path) -> None:
    excludes = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _WITHOUT]
    options = ["--quiet", "--variant=essential", f"--include={_PACKAGES}", *excludes]
    _run("mmdebstrap", *options, f"--customize-hook={_USER_HOOK}", _SUITE, str(output))


def _run(*command: str, environment: dict[str, str] | None = None) -> str:
    ran = subprocess.run(
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise ClusterError(f"'{_short(command)}' failed:\n{(ran.stdout + ran.stderr).strip()[-3000:]}")
    return ran.stdout


def _short(command: Sequence[str]) -> str:
    text = " ".join(command)
    return text if len(text) < 160 else f"{text[:157]}..."
