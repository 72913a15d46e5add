"""The programs that come from the distribution: which are missing, and installing them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inflight_cluster import tools
from inflight_cluster.errors import ClusterError

LIST = Path(__file__).with_name("debian-packages.txt")
_POLICY = Path("/usr/sbin/policy-rc.d")


def parse(text: str) -> dict[str, str]:
    """Package → the program or absolute path that shows it is installed."""
    lines = (line.split("#")[0].split() for line in text.splitlines())
    return {fields[0]: fields[1] for fields in lines if fields}


def missing() -> list[str]:
    """Packages of the list whose program is not on this machine, wherever it came from."""
    return [package for package, sign in parse(LIST.read_text()).items() if not _present(sign)]


def install(packages: list[str]) -> None:
    """apt-get install without questions and without starting any service."""
    if tools.system_program("apt-get") is None:
        names = " ".join(packages)
        raise ClusterError(f"missing: {names}; this machine has no apt-get, install what provides them by hand")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _services_stay_off():
        for command in (["apt-get", "update", "-qq"], _install_command(packages)):
            ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if ran.returncode:
                raise ClusterError(f"'{' '.join(command)}' failed: {ran.stderr.strip()[-1000:]}")


def _install_command(packages: list[str]) -> list[str]:
    return ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages]


def _present(sign: str) -> bool:
    return Path(sign).exists() if sign.startswith("/") else tools.system_program(sign) is not None


@contextmanager
def _services_stay_off() -> Iterator[None]:
    if _POLICY.exists():  # the machine has its own policy: leave it
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
