"""Wheels for an image: every dependency, checked by hash and cached, and the wheel of our own package."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from inflight_cluster.errors import ClusterError
from inflight_cluster.settings import REPOSITORY

_PYTHON = REPOSITORY / ".venv" / "bin" / "python"
_PYTHON_VERSION = "3.11"
_OLDEST_GLIBC, _NEWEST_GLIBC = 17, 36  # of manylinux, and of the base image


def dependencies(requirements: Path, cache: Path) -> Path:
    """A directory with one wheel for each line of `requirements`, downloaded once for each version of the file."""
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    directory = cache / "wheels" / f"{requirements.stem}-{digest}"
    if directory.exists():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        command = ["download", "--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:"]
        command += [f"--python-version={_PYTHON_VERSION}", *_platforms(platform.machine()), "--dest", scratch]
        _pip(*command, "--requirement", str(requirements))
        for old in directory.parent.glob(f"{requirements.stem}-????????????????"):
            shutil.rmtree(old)
        shutil.copytree(scratch, directory)
    return directory


def own(project: Path, destination: Path) -> Path:
    """The wheel of the project in `destination`. The same sources give the same bytes and times."""
    _pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(destination), str(project))
    (wheel,) = destination.glob("*.whl")
    os.utime(wheel, (0, 0))  # builders include the time in what they compare
    return wheel


def _platforms(machine: str) -> Iterable[str]:
    versions = [f"manylinux_2_{minor}" for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)]
    return (f"--platform={name}_{machine}" for name in (*versions, "manylinux2014"))


def _pip(*arguments: str) -> None:
    if not _PYTHON.exists():
        raise ClusterError("images are built with the repository's virtual environment: run 'make venv' first")
    ran = subprocess.run([str(_PYTHON), "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise ClusterError(f"pip {arguments[0]} failed: {ran.stderr.strip()[-2000:]}")
