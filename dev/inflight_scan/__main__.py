"""`make scan`: bandit over the code, kube-score over the manifests, pip-audit over the pins. Any finding fails it."""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from inflight_cluster import tools
from inflight_cluster.settings import cache_directory
from inflight_scan import locks, manifests
from inflight_scan.sbom import ENVIRONMENT, ROOT

_CODE: Final = ("operator", "model-server", "router", "dev")
_OPTIONAL_CHECKS: Final = ("container-seccomp-profile", "container-ports-check")
_SCORE: Final = "github.com/zegl/kube-score/cmd/kube-score"
_SCORE_MODULE: Final = ROOT / "dev" / "scan"


def bandit() -> bool:
    """What is dangerous in our Python. Its remarks about markers that it did not need are not findings."""
    command = [str(ENVIRONMENT / "bandit"), "--quiet", "--recursive", *_CODE, "--configfile", "pyproject.toml"]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def kube_score() -> bool:
    """What is unusual in the manifests, warnings included."""
    options = [f"--ignore-test={check}" for check in manifests.EXPLAINED]
    options += [f"--enable-optional-test={check}" for check in _OPTIONAL_CHECKS]
    command = [str(_kube_score()), "score", "--ignore-container-cpu-limit", "--exit-one-on-warning", *options]
    done = subprocess.run(
        [*command, "--kubernetes-version=v1.31", "--output-format=ci", "-"],
        input=manifests.everything(),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith(("[CRITICAL]", "[WARNING]"))]
    print(*found, sep="\n", end="\n" if found else "")
    return done.returncode == 0


def pip_audit() -> bool:
    """Known holes in what goes into the images. `--strict`: what could not be looked up is no success."""
    options = ("--strict", "--disable-pip", "--require-hashes", "--progress-spinner=off")
    files = [f"--requirement={locks.REQUIREMENTS / image}.txt" for image in locks.IMAGES]
    return subprocess.run([str(ENVIRONMENT / "pip-audit"), *options, *files], check=False).returncode == 0


SCANNERS: Final[Mapping[str, Callable[[], bool]]] = {"bandit": bandit, "kube-score": kube_score, "pip-audit": pip_audit}


def _kube_score() -> Path:
    """The scanner, built from dev/scan/go.mod the first time."""
    pinned = hashlib.sha256((_SCORE_MODULE / "go.sum").read_bytes()).hexdigest()[:16]
    program = cache_directory() / "scan" / f"kube-score-{pinned}"
    if not program.exists():
        print("building kube-score (a minute or two)")
        program.parent.mkdir(parents=True, exist_ok=True)
        go = [str(tools.go(cache_directory())), "build", "-trimpath", "-o", str(program), _SCORE]
        environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
        subprocess.run(go, cwd=_SCORE_MODULE, env=environment, check=True)
    return program


def main() -> int:
    """Exit status 1: something was found, or a scanner could not do its work."""
    parser = argparse.ArgumentParser(prog="scan", description=__doc__)
    parser.add_argument("--offline", action="store_true", help="without pip-audit, which asks a vulnerability service")
    left_out = {"pip-audit"} if parser.parse_args().offline else set()
    failed = []
    for name, scanner in SCANNERS.items():
        print(f"=== {name}{': LEFT OUT, nothing was looked up' if name in left_out else ''}", flush=True)
        if name not in left_out and not scanner():
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "nothing unexplained was found")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
