"""Wheels for an image: every dependency, checked by hash and cached, and the wheel of our own package."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from inflight_cluster.errors import ClusterError
from inflight_cluster.settings import REPOSITORY

_PYTHON = REPOSITORY / ".venv" / "bin" / "python"
_PYTHON_VERSION = (3, 11, 2)
"""Of the base image: Debian 12's."""
_MARKED = re.compile(r" ; python_full_version (<|>=) '([\d.]+)'")
_OLDEST_GLIBC, _NEWEST_GLIBC = 17, 36  # of manylinux, and of the base image


def dependencies(requirements: Path, cache: Path) -> Path:
    """A directory with one wheel for each line of `requirements`, downloaded once for each version of the file."""
    wanted = for_image(requirements.read_text())
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:16]
    directory = cache / "wheels" / f"{requirements.stem}-{digest}"
    if directory.exists():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        command = ["download", "--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:"]
        version = ".".join(map(str, _PYTHON_VERSION))
        command += [f"--python-version={version}", *_platforms(platform.machine()), "--dest", scratch]
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write(wanted)
            file.flush()
            _pip(*command, "--requirement", file.name)
        for old in directory.parent.glob(f"{requirements.stem}-????????????????"):
            shutil.rmtree(old)
        shutil.copytree(scratch, directory)
    return directory


def for_image(requirements: str) -> str:
    """`requirements` with what they say of Python's version judged for the image's.

    pip judges it for the Python that it runs on, whatever --python-version says.
    """
    lines, wanted = [], True
    for line in requirements.splitlines(keepends=True):
        if not line[0].isspace():  # a requirement; its hashes are indented
            marked = _MARKED.search(line)
            wanted = not marked or _holds(*marked.groups())
            line = _MARKED.sub("", line)  # noqa: PLW2901
        lines += [line] if wanted else []
    return "".join(lines)


def _holds(comparison: str, version: str) -> bool:
    older = tuple(map(int, version.split("."))) > _PYTHON_VERSION
    return older if comparison == "<" else not older


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
