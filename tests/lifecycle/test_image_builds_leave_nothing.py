"""A build of an image that is killed leaves no mount, and the next build removes what else is left of it. As root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inflight_cluster import mounts
from inflight_cluster.builders import Buildah
from inflight_cluster.console import Console

DOCKERFILE = """
ARG BASE_IMAGE
FROM scratch
COPY root /
RUN {run}
"""
BUILD = """
import sys; from pathlib import Path; from inflight_cluster.builders import Buildah
Buildah(Path(sys.argv[1]))._buildah("build", "--layers", "--tag", "localhost/slow", sys.argv[2])
"""

pytestmark = [
    pytest.mark.cluster_lifecycle,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="needs buildah"),
    pytest.mark.timeout(120),
]


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Buildah:
    """Without the base image, which takes a minute and which these images don't need."""
    monkeypatch.setattr(Buildah, "_base", lambda *_: "scratch")
    return Buildah(tmp_path / "cache")


def context(directory: Path, run: str) -> Path:
    """What a build of one command in a file system with nothing but this machine's dash and sleep needs."""
    for program in ("/bin/sh", "/bin/sleep"):
        linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.split()
        for file in (program, *(word for word in linked if word.startswith("/"))):
            target = directory / "root" / file.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(file).resolve(), target)
    (directory / "Dockerfile").write_text(DOCKERFILE.format(run=run))
    return directory


def wait_for(what: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def test_a_build_that_is_killed_leaves_no_mount_and_the_next_one_no_container(builder: Buildah, tmp_path: Path) -> None:
    slow = context(tmp_path / "slow", "sleep 77")
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", BUILD, str(cache), str(slow)]
    with subprocess.Popen(command, start_new_session=True) as building:
        wait_for(lambda: b"sleep\x0077" in b" ".join(p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline")))
        os.killpg(building.pid, signal.SIGKILL)

    assert mounts.below(cache) == []
    assert builder._buildah("containers", "--quiet", "--all"), "the killed build left nothing: this proves nothing"

    builder.build(context(tmp_path / "next", "sleep 0"), "localhost/next:1", tmp_path / "next.tar", Console())

    assert builder._buildah("containers", "--quiet", "--all") == ""
    assert mounts.below(cache) == []
    assert (tmp_path / "next.tar").stat().st_size > 0
